package main

// -s -listen serves the counters over HTTP, where Prometheus looks for them.
// Each scrape asks the server one question, so what is served is never old.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/inlookup/inlookup"
)

const (
	metricsType = "text/plain; version=0.0.4; charset=utf-8" // of Prometheus's text format

	maxScrapes   = 8 // at the same time
	scrapeTime   = 8 * time.Second
	endTime      = 10 * time.Second // for scrapes that are under way at the end
	requestTime  = 5 * time.Second  // for a client to send its request
	replyTime    = 15 * time.Second // for a scrape, and for its client to read
	idleTime     = 2 * time.Minute  // between the requests of a connection
	maxHeaderLen = 8 << 10
)

// checkListen completes the address. Without a host only this machine can
// connect.
func (o *options) checkListen() error {
	host, port, err := net.SplitHostPort(o.listen)
	if err != nil || port == "" {
		return fmt.Errorf("-listen %s: want address:port, as in 127.0.0.1:9177", o.listen)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	o.listen = net.JoinHostPort(host, port)
	return nil
}

// An exporter answers scrapes.
type exporter struct {
	*program
	options *options
	slots   chan struct{} // held by each scrape
}

// listen serves the counters until ctx is done. Scrapes that are under way then
// are still answered.
func (p *program) listen(ctx context.Context, o *options) error {
	if overTCP(p.getenv) {
		return fmt.Errorf("-listen: tcpclient's connection takes one question only (%w)", errUsage)
	}
	_, port, _ := net.SplitHostPort(o.listen) // as checkListen has joined it
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("-listen: %w (%w)", err, errUsage) // as systemd wants it: for good
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	e := &exporter{p, o, make(chan struct{}, maxScrapes)}
	server := &http.Server{
		Handler:           e.handler(),
		ReadHeaderTimeout: requestTime,
		ReadTimeout:       requestTime,
		WriteTimeout:      replyTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeaderLen,
		ErrorLog:          log.New(p.stderr, "inquerytest: ", 0),
	}
	p.say("serving http://%s/metrics", listener.Addr())
	if a, ok := listener.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		p.say("warning: other machines can read the counters there")
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	limited, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	return server.Shutdown(limited)
}

func (e *exporter) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", e.scrape)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "The counters of inlookup are at /metrics.\n")
	})
	return mux
}

// scrape answers with the counters, or with 503 and the reason why there are
// none.
func (e *exporter) scrape(w http.ResponseWriter, r *http.Request) {
	text, err := e.metrics(r.Context())
	if e.options.verbose {
		outcome := fmt.Sprintf("bytes: %d", len(text))
		if err != nil {
			outcome = err.Error()
		}
		e.say("%s %s for %s: %s", r.Method, r.URL.Path, r.RemoteAddr, outcome)
	}
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		http.Error(w, singleLine(err.Error()), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", metricsType)
	io.WriteString(w, text)
}

var errManyScrapes = errors.New("too many scrapes at the same time")

// metrics asks the server.
func (e *exporter) metrics(ctx context.Context) (string, error) {
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	default:
		return "", errManyScrapes
	}
	ctx, cancel := context.WithTimeout(ctx, scrapeTime)
	defer cancel()
	return e.program.counters(ctx, e.options)
}

// counters asks the server for its counters. It looks for the server each time,
// because one may be gone, and another may have come.
func (p *program) counters(ctx context.Context, o *options) (string, error) {
	from, err := p.connect(o)
	if err != nil {
		return "", err
	}
	defer from.close()
	var a inlookup.Answer
	if a, err = from.Resolve(ctx, o.query); err != nil {
		return "", from.advise(err, o.query)
	}
	return a.Text()
}
