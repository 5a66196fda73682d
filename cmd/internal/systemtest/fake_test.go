package systemtest

// A fake MySQL server, to see where the program connects to and with which account, and MySQL asked
// without a server of ours in front of it.

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
)

// A lookup is MySQL in the test's own process, with what it logs.
type lookup struct {
	inlookup.Directory
	mysql *inlookup.MySQL
	log   *lines
}

// lookup returns one for the site, to the end of the test.
func (s *site) lookup() *lookup {
	l := &lines{}
	m := &inlookup.MySQL{Getenv: s.getenv, Log: log.New(l, "", 0)}
	s.t.Cleanup(func() { m.Close() })
	return &lookup{inlookup.Directory{Resolver: m}, m, l}
}

// lines is a log that several goroutines can write to.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// visits lists who came to the fakes of a test: "fake user password database".
type visits struct {
	mu   sync.Mutex
	list []string
}

func (v *visits) add(visit string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.list, visit) {
		v.list = append(v.list, visit)
	}
}

func (v *visits) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.Join(v.list, ", ")
}

func (v *visits) reset() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.list = nil
}

// A fake is a MySQL server that notes who comes and refuses everybody. It offers TLS.
type fake struct {
	name   string
	seen   *visits
	broken bool        // hang up at once, and note nobody
	tls    *tls.Config // nil: hang up when the client wants TLS
}

// listen serves until the test ends, and returns the address.
func (f fake) listen(t *testing.T, network, address string) (net.Addr, error) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
	return l.Addr(), nil
}

// Capabilities of client and server, as the protocol numbers them.
const (
	capConnectWithDB = 0x8
	capSSL           = 0x800
	capabilities     = 0x1 | capConnectWithDB | 0x200 | capSSL | 0x2000 | 0x8000 | 0x80000
)

const scramble = "abcdefghijklmnopqrst"

func (f fake) serve(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if f.broken {
		return
	}
	greeting := append([]byte{10}, "8.0.0-fake\x00\x01\x00\x00\x00"+scramble[:8]+"\x00"...)
	greeting = binary.LittleEndian.AppendUint16(greeting, capabilities&0xffff)
	greeting = append(greeting, 45, 2, 0)
	greeting = binary.LittleEndian.AppendUint16(greeting, capabilities>>16)
	greeting = append(greeting, byte(len(scramble)+1))
	greeting = append(greeting, make([]byte, 10)...)
	greeting = append(greeting, scramble[8:]+"\x00mysql_native_password\x00"...)
	if writePacket(conn, 0, greeting) != nil {
		return
	}
	login, err := readPacket(conn)
	if err != nil || len(login) < 32 {
		return
	}
	flags := binary.LittleEndian.Uint32(login)
	if flags&capSSL != 0 {
		f.secure(conn)
		return
	}
	f.seen.add(f.name + " " + account41(login[32:], flags))
	writePacket(conn, 2, append([]byte{0xff, 0x15, 0x04}, "#28000Access denied"...)) // 1045
}

// secure notes the version of TLS that the client takes, or that it takes none.
func (f fake) secure(conn net.Conn) {
	if f.tls == nil {
		f.seen.add(f.name + " TLS")
		return
	}
	secure := tls.Server(conn, f.tls)
	if err := secure.Handshake(); err != nil {
		f.seen.add(f.name + " no TLS")
		return
	}
	f.seen.add(f.name + " " + tls.VersionName(secure.ConnectionState().Version))
}

// account41 returns user, password and database of a login.
func account41(login []byte, flags uint32) string {
	user, rest, _ := bytes.Cut(login, []byte{0})
	if len(rest) == 0 || len(rest) <= int(rest[0]) {
		return "malformed"
	}
	proof, rest := rest[1:1+rest[0]], rest[1+rest[0]:]
	database := ""
	if flags&capConnectWithDB != 0 {
		name, _, _ := bytes.Cut(rest, []byte{0})
		database = string(name)
	}
	return string(user) + " " + passwordOf(proof) + " " + database
}

// passwordOf finds out which of the tests' passwords was meant.
func passwordOf(proof []byte) string {
	if len(proof) == 0 {
		return "none"
	}
	for _, password := range []string{"secret", "other"} {
		once := sha1.Sum([]byte(password))
		twice := sha1.Sum(once[:])
		mask := sha1.Sum(append([]byte(scramble), twice[:]...))
		for i := range mask {
			mask[i] ^= once[i]
		}
		if bytes.Equal(mask[:], proof) {
			return password
		}
	}
	return "unknown"
}

func writePacket(w io.Writer, number byte, payload []byte) error {
	size := len(payload)
	header := []byte{byte(size), byte(size >> 8), byte(size >> 16), number}
	_, err := w.Write(append(header, payload...))
	return err
}

func readPacket(r io.Reader) ([]byte, error) {
	header := make([]byte, 4)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	size := int(header[0]) | int(header[1])<<8 | int(header[2])<<16
	payload := make([]byte, size)
	_, err := io.ReadFull(r, payload)
	return payload, err
}

// unavailable checks that a question is answered "error": not "absent", and nothing else.
func unavailable(t *testing.T, what string, d inlookup.Directory, email string) {
	t.Helper()
	status, err := d.Status(context.Background(), email)
	if err == nil || errors.Is(err, inlookup.ErrNotFound) {
		t.Errorf("%s: status of %s is %v, %v; want an error", what, email, status, err)
	}
}
