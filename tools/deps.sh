#!/bin/sh
# Installs what the tests call: DEBS, and a docker command when there is none.
# Does nothing, and needs no network, when all of it is there.
set -eu

missing=
for deb in $DEBS; do
	dpkg-query -W -f '${db:Status-Status}' "$deb" 2>/dev/null | grep -qx installed || missing="$missing $deb"
done
command -v docker >/dev/null 2>&1 || missing="$missing docker.io"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "deps: missing$missing: run as root, or: apt-get install$missing" >&2
	exit 1
fi
echo "deps: installing$missing"

# Packages may start their daemons only if this file lets them. A dockerd in
# the machine's own namespace would add links and rules that no test asked for.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086
apt-get install -qy --no-install-recommends $missing
# Later Debian releases keep the command apart from the daemon.
command -v docker >/dev/null 2>&1 || apt-get install -qy --no-install-recommends docker-cli
