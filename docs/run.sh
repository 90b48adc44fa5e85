#!/bin/sh
# The main job in one go: a network, two containers on it, one that reaches the
# other by its name. Removes what it made, and stops the daemon if it had to
# start one. LINKSPAN is the command; LINKSPAN_HOST, if set, the daemon.
set -eu

linkspan=${LINKSPAN:-linkspan}
net=run-$$
server=web-$$
pidfile=/run/linkspan/linkspan.pid

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() {
	say "\$ linkspan $*"
	"$linkspan" "$@"
}

[ "$(id -u)" = 0 ] || { echo 'run.sh: making namespaces and links needs root' >&2; exit 1; }

# Was a daemon there before us?
started=
if [ -z "${LINKSPAN_HOST:-}" ] && ! "$linkspan" -H unix:///run/linkspan/linkspan.sock version >/dev/null 2>&1; then
	started=yes
fi

clean() {
	status=$?
	trap - EXIT INT TERM
	say 'Cleaning up'
	"$linkspan" rm -f "$server" >/dev/null 2>&1 || true
	"$linkspan" network rm "$net" >/dev/null 2>&1 || true
	if [ -n "$started" ] && [ -r "$pidfile" ]; then
		pid=$(cat "$pidfile")
		echo "stopping the daemon that this started, process $pid"
		kill "$pid" 2>/dev/null || true
		tries=100
		while kill -0 "$pid" 2>/dev/null && [ "$tries" -gt 0 ]; do
			sleep 0.1
			tries=$((tries - 1))
		done
		echo 'taking away what the daemon had done to the host'
		"$linkspan" daemon --uninstall || status=1
	fi
	exit "$status"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

show network create "$net"
show run -d --name "$server" --network "$net" --network-alias www --rootfs / -- python3 -m http.server 80

say 'The second container asks for www until the server answers'
show run --rm --network "$net" --rootfs / -- sh -c '
	ip -br addr
	cat /etc/resolv.conf
	getent hosts www
	for try in 1 2 3 4 5 6 7 8 9 10; do
		curl -fsS -o /dev/null -w "http://www/ answered %{http_code} from %{remote_ip}\n" http://www/ && exit 0
		sleep 0.2
	done
	exit 1'

show ps
say 'It worked: two containers on one network, one of which found the other by name.'
