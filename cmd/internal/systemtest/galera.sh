#!/usr/bin/env bash
# Several databases on this machine, an inlookup that knows all of them, and
# what its clients see. BEYOND.md explains it.
#
#   apt-get install -y --no-install-recommends mariadb-server galera-4 rsync
#   cmd/internal/systemtest/galera.sh          a Galera cluster, of which nodes are killed
#   cmd/internal/systemtest/galera.sh replica  a primary, and a replica that lags
#
# Everything is in one temporary directory, which is removed at the end, and on
# ports that were free. It takes two or three minutes and half a gigabyte of
# memory.
set -euo pipefail
pause=${PAUSE:-3} # seconds of load before and after each event
users=10000 clients=16
cd "$(dirname "$0")/../../.."
export PATH=$PATH:/usr/sbin
for program in go mariadbd mariadb-install-db mariadb rsync setsid; do
	command -v "$program" >/dev/null || { echo "galera.sh: there is no $program" >&2; exit 111; }
done
provider=$(find /usr/lib* -name libgalera_smm.so -print -quit 2>/dev/null || true)
[ -n "$provider" ] || { echo "galera.sh: there is no libgalera_smm.so" >&2; exit 111; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/galera.XXXXXX")
declare -A node=() # process of each node that runs; it leads its process group
server='' load='' watch=''

clean() {
	trap - EXIT
	for pid in $watch $load $server; do kill "$pid" 2>/dev/null || true; done
	for pid in "${node[@]}"; do kill -9 -- "-$pid" 2>/dev/null || true; done # and what copies data for it
	wait 2>/dev/null || true
	rm -rf "$dir"
}
trap clean EXIT
trap 'exit 1' INT TERM HUP

say() { printf '\n%s\n' "$*"; }
die() { echo "galera.sh: $*" >&2; grep -H ERROR "$dir"/node?.log | tail -n 15 >&2; exit 1; }

# until_ok SECONDS COMMAND... waits until the command succeeds.
until_ok() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || die "in vain: $*"
		sleep 0.1
	done
}

# free_port VARIABLE sets it to a port that is free on the three addresses, and
# below the range that the kernel uses for outgoing connections.
taken=' '
free_port() {
	local port i
	while :; do
		port=$((20000 + RANDOM % 12000))
		[[ $taken == *" $port "* ]] && continue
		for i in 1 2 3; do
			! (: <>"/dev/tcp/127.0.0.$i/$port") 2>/dev/null || continue 2
		done
		taken+="$port "
		printf -v "$1" %s "$port"
		return
	done
}

# options I prints the options of node I. It does not wait for disks, because
# the machine itself goes on.
options() {
	local at=127.0.0.$1
	printf '%s\n' --no-defaults --datadir="$dir/node$1" --socket="$dir/node$1/sock" --pid-file="$dir/node$1/pid" \
		--tmpdir="$dir/node$1" --bind-address="$at" --port="$mysql" --skip-name-resolve "${user[@]}" --max-connections=100 \
		--innodb-log-file-size=16M --innodb-flush-method=nosync --innodb-flush-log-at-trx-commit=2
	if [ "$mode" = replica ]; then
		printf '%s\n' --server-id="$1" --log-bin="$dir/node$1/log"
		return
	fi
	printf '%s\n' --binlog-format=ROW --innodb-autoinc-lock-mode=2 \
		--wsrep-on=ON --wsrep-provider="$provider" --wsrep-cluster-name="$(basename "$dir")" --wsrep-node-name="node$1" \
		--wsrep-cluster-address="gcomm://127.0.0.1:$group,127.0.0.2:$group,127.0.0.3:$group" \
		--wsrep-node-address="$at:$group" --wsrep-sst-method=rsync --wsrep-sst-receive-address="$at:$copy" \
		--wsrep-provider-options="gmcast.listen_addr=tcp://$at:$group;ist.recv_addr=$at:$catchup;gcache.size=16M"
}

sql() { mariadb --no-defaults --skip-column-names --batch -S "$dir/node$1/sock" -u "$(id -un)" -e "$2" "${@:3}"; }
status() { sql "$1" "SHOW STATUS LIKE 'wsrep_$2'" | cut -f 2; }
refusing() { [ "$(status "$1" ready)" = OFF ]; }
synced() {
	if [ "$mode" = replica ]; then sql "$1" "DO 0"; else [ "$(status "$1" local_state_comment)" = Synced ] && [ "$(status "$1" ready)" = ON ]; fi
}

# start I [MORE] starts node I and waits until it has all data.
start() {
	mapfile -t args < <(options "$1")
	setsid mariadbd "${args[@]}" "${@:2}" >>"$dir/node$1.log" 2>&1 &
	node[$1]=$!
	until_ok 60 synced "$1"
}

# crash I kills node I as a power failure would.
crash() {
	kill -9 "${node[$1]}"
	wait "${node[$1]}" 2>/dev/null || true
	kill -9 -- "-${node[$1]}" 2>/dev/null || true
	unset "node[$1]"
}

# used prints the nodes to which inlookup has connections.
used() {
	local i n
	for i in "${!node[@]}"; do
		n=$(sql "$i" "SELECT COUNT(*) FROM information_schema.processlist WHERE user='indimail'" 2>/dev/null) || n=0
		[ "$n" -eq 0 ] || echo "$i"
	done | sort | head -1
}

# watching asks about one user after another, with a process for each. It
# compares the answer with the table, and writes the outcomes to a file.
watching() {
	local n out status
	while [ ! -e "$dir/stop" ]; do
		n=$((RANDOM % users)) status=0
		out=$("$dir/inquerytest" -q 3 "user$n@example.com" 2>>"$dir/watch.err") || status=$?
		case $status:$out in
		0:*"pw_name  : user$n"$'\n'"pw_passwd: hash-of-user$n"$'\n'*) echo right ;;
		0:*) echo wrong ;;
		1:*) echo absent ;;
		*) echo unavailable ;;
		esac >>"$dir/watch"
	done
}

# begin puts load on the server. end stops the load and prints a line of what
# the clients saw. Their own output goes to a file.
begin() {
	rm -f "$dir/stop" "$dir/watch"
	touch "$dir/watch"
	"$dir/inquerytest" -n 2000000000 -p "$clients" -u "$users" -q 3 user%d@example.com >"$dir/load" 2>"$dir/load.err" &
	load=$!
	watching &
	watch=$!
	sleep "$pause"
}

end() {
	sleep "$pause"
	touch "$dir/stop"
	kill -TERM "$load"
	wait "$load" || true
	wait "$watch" || true
	load='' watch=''
	awk -v what="$1" -v w="$(grep -c right "$dir/watch" || true)" -v x="$(grep -cv right "$dir/watch" || true)" -v bad="$(grep -cE 'wrong|absent' "$dir/watch" || true)" '
		$1 == "asked" && $3 == "of" && $2 + 0 > 0 { asked = $2 }
		$1 == "absent" { absent = $2 }
		$1 == "timeout" || $1 == "unavailable" { un += $2 }
		$1 == "too" { other += $3 }
		$1 == "invalid" || $1 == "other" { other += $2 }
		$1 == "max" { max = $2 }
		END { printf "%-42s %8d %8d %11d %6d %9s   %5d %11d %13d\n", what, asked, asked - un - absent - other, un, absent + other, max, w, x - bad, bad }' "$dir/load"
	grep -h . "$dir/load.err" | sed 's/^/    /' || true
	! grep -qE 'wrong|absent' "$dir/watch" || failed=1
	grep -q '^absent *0$' "$dir/load" || failed=1
}

# new I makes node I's data directory.
new() {
	mariadb-install-db --no-defaults --datadir="$dir/node$1" --auth-root-authentication-method=socket \
		--auth-root-socket-user="$(id -un)" --skip-test-db --innodb-log-file-size=16M --debug-no-sync "${user[@]}" \
		>"$dir/install.log" 2>&1 || die "$(cat "$dir/install.log")"
}

# schema I makes database, user and tables on node I.
schema() {
	sql "$1" "CREATE DATABASE indimail; CREATE USER indimail@'%' IDENTIFIED BY 'secret'; GRANT SELECT ON indimail.* TO indimail@'%'"
	cat cmd/internal/mariadb/schema.sql cmd/internal/mariadb/sample.sql |
		mariadb --no-defaults -S "$dir/node$1/sock" -u "$(id -un)" indimail
}

# serve VARIABLE=VALUE... starts inlookup.
serve() {
	env MYSQL_VPORT="$mysql" MYSQL_PASSWD=secret "$@" "$dir/inlookup" >"$dir/inlookup.out" 2>"$dir/inlookup.log" &
	server=$!
	until_ok 10 "$dir/inquerytest" -s
}

galera() {
	local i j
	say "making a cluster in $dir"
	new 1
	start 1 --wsrep-new-cluster
	schema 1
	# Without ANALYZE, nodes may copy the table before it has statistics. They
	# would then read all of its rows for each question.
	sql 1 "INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell)
		SELECT CONCAT('user',seq),'example.com',CONCAT('hash-of-user',seq),1,0,'A User','/home/mail','NOQUOTA'
		FROM seq_0_to_$((users - 1)); ANALYZE TABLE indimail" indimail >/dev/null
	start 2
	start 3
	echo "$(status 1 cluster_size) nodes, $(status 1 cluster_status), $(sql 3 'SELECT COUNT(*) FROM indimail.indimail') users on the third"
	serve MYSQL_HOST=127.0.0.1,127.0.0.2,127.0.0.3 USE_BTREE=0

	say "each question is looked up, there is no cache; MYSQL_HOST=127.0.0.1,127.0.0.2,127.0.0.3"
	printf '%-42s %8s %8s %11s %6s %9s   %5s %11s %13s\n' "$clients clients, and one that checks" asked answered unavailable absent longest right unavailable wrong/absent
	begin
	end "all three run"
	for _ in 1 2 3; do
		begin
		i=$(used)
		crash "$i"
		end "node $i, which is in use, is killed"
		begin
		start "$i"
		end "node $i is back, copying all data"
	done

	begin
	i=$(used)
	sql "$i" "SET GLOBAL wsrep_provider_options='gmcast.isolate=1'"
	until_ok 30 refusing "$i"
	end "node $i, in use, is cut off from the others"
	begin
	sql "$i" "SET GLOBAL wsrep_provider_options='gmcast.isolate=0'"
	until_ok 60 synced "$i"
	end "node $i is one of them again"

	begin
	i=$(used)
	for j in 1 2 3; do
		[ "$j" = "$i" ] || crash "$j"
	done
	until_ok 30 refusing "$i"
	end "both others are killed: no majority"
	begin
	sql "$i" "SET GLOBAL wsrep_provider_options='pc.bootstrap=YES'"
	until_ok 60 synced "$i"
	end "node $i is told to go on alone"
	begin
	crash "$i"
	end "it is killed too"
	begin
	start "$i" --wsrep-new-cluster
	end "node $i is back"
}

# asked USER WHEN prints what the server says about a user's password.
asked() {
	local answer status=0
	answer=$("$dir/inquerytest" -q 3 "$1@example.com" 2>&1) || status=$?
	answer=$(sed -n 's/^pw_passwd: //p' <<<"$answer")
	[ "$status" = 0 ] || answer=$([ "$status" = 1 ] && echo absent || echo unavailable)
	printf '%4ds  %-48s %s: %s\n' "$((SECONDS - began))" "$2" "$1" "$answer"
}

replica() {
	local i
	say "making a primary, 127.0.0.1, and a replica that lags 5 seconds, 127.0.0.2, in $dir"
	for i in 1 2; do
		new "$i"
		start "$i"
	done
	sql 1 "CREATE USER copy@'%' IDENTIFIED BY 'copy'; GRANT REPLICATION SLAVE ON *.* TO copy@'%'"
	sql 2 "CHANGE MASTER TO MASTER_HOST='127.0.0.1',MASTER_PORT=$mysql,MASTER_USER='copy',MASTER_PASSWORD='copy',
		MASTER_USE_GTID=slave_pos,MASTER_DELAY=5; START SLAVE"
	schema 1
	until_ok 30 sql 2 "SELECT * FROM indimail.vlimits"
	caught_up() { [ "$(sql 2 "SELECT @@gtid_slave_pos")" = "$(sql 1 "SELECT @@gtid_binlog_pos")" ]; }
	until_ok 30 caught_up
	serve MYSQL_HOST=127.0.0.2,127.0.0.1
	say "MYSQL_HOST=127.0.0.2,127.0.0.1: the replica is asked"
	began=$SECONDS
	asked user "at first"
	sql 1 "UPDATE indimail.indimail SET pw_passwd='new' WHERE pw_name='user'; INSERT INTO indimail.indimail
		(pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES ('fresh','example.com','first',1,0,'','','')"
	"$dir/inquerytest" -F user@example.com >/dev/null
	asked user "changed on the primary, and flushed at once"
	asked fresh "added on the primary"
	until_ok 30 caught_up
	asked user "the replica has it"
	asked fresh "the replica has it"
	"$dir/inquerytest" -F example.com >/dev/null
	asked user "flushed again"
	asked fresh "flushed again"
	kill "$server"
	wait "$server"

	serve MYSQL_HOST=127.0.0.1,127.0.0.2
	say "MYSQL_HOST=127.0.0.1,127.0.0.2: the primary is asked"
	sql 1 "UPDATE indimail.indimail SET pw_passwd='newer' WHERE pw_name='user'"
	began=$SECONDS
	asked user "changed, and asked at once"
	until_ok 30 caught_up
	crash 1
	"$dir/inquerytest" -F "" >/dev/null
	asked user "the primary is killed, all is flushed"
	start 1
	sql 1 "UPDATE indimail.indimail SET pw_passwd='newest' WHERE pw_name='user'"
	"$dir/inquerytest" -F "" >/dev/null
	asked user "the primary is back, changed, and flushed at once"
	kill -INT "$server"
	sleep 1
	"$dir/inquerytest" -F "" >/dev/null
	asked user "SIGINT, and flushed"
}

mode=${1:-galera} failed=0 user=()
declare -F -- "$mode" >/dev/null && [[ $mode = galera || $mode = replica ]] || { echo "usage: galera.sh [galera|replica]" >&2; exit 100; }
# Root lets Debian's user mysql run the nodes: the rsync that copies data drops
# root's rights, and could not write what root owns.
mkdir "$dir"/node{1,2,3} "$dir/control" "$dir/replies"
if [ "$EUID" -eq 0 ]; then
	user=(--user=mysql)
	chown mysql "$dir"/node{1,2,3}
	chmod 711 "$dir"
fi
for variable in mysql group copy catchup; do free_port "$variable"; done
export CONTROLDIR=$dir/control ASSIGNDIR=$dir INFIFO=$dir/infifo FIFOTMPDIR=$dir/replies QUERY_CACHE=1
go build -o "$dir" ./cmd/inlookup ./cmd/inquerytest
"$mode"

say "inlookup logged"
cut -c 1-160 "$dir/inlookup.log" | sort | uniq -c | sort -rn | head -12
kill "$server"
wait "$server" || failed=1
server=''
[ "$failed" = 0 ] || die "an answer was wrong, or absent for a user who is there"
[ "$mode" = replica ] || say "no answer was wrong, and none said absent"
