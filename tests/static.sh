#!/bin/sh
# The static binary in a root that holds nothing else: no library, no user database, as in a
# container (make static-test). Needs root for the chroot.
set -eu
binary=${1:?usage: static.sh BINARY}
[ "$(id -u)" -eq 0 ] || { echo "make static-test needs root" >&2; exit 1; }
root=$(mktemp -d)
server=
end() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$root"
}
trap end EXIT
must() { "$@" || { echo "failed: $*" >&2; cat "$root/log" >&2; exit 1; }; }

: >"$root/log"
if ldd "$binary" 2>/dev/null | grep -q '=>'; then
    echo "$binary needs shared libraries" >&2
    exit 1
fi
mkdir -p "$root/usr/bin" "$root/srv/tftp"
chmod 755 "$root"
cp "$binary" "$root/usr/bin/tftpool"
echo content >"$root/srv/tftp/file"

# serve OPTIONS : waits until the server says where it serves.
serve() {
    "$@" 2>"$root/log" &
    server=$!
    for _ in $(seq 100); do grep -q ' serving .* on ' "$root/log" && break; sleep 0.1; done
    address=$(sed -n 's/.* serving .* on //p' "$root/log")
    must test -n "$address"
}
stop() { kill "$server"; wait "$server" || true; server=; }

# As the container runs it, on a free port.
serve chroot --userspec=65534:65534 "$root" /usr/bin/tftpool serve --host 127.0.0.1 --port 0 --sandbox require
must test "$(chroot --userspec=65534:65534 "$root" /usr/bin/tftpool get -qo - "tftp://$address/file")" = content
# The health check takes an ERROR for an answer.
code=0
chroot --userspec=65534:65534 "$root" /usr/bin/tftpool get -qo - "tftp://$address/.health" || code=$?
must test "$code" -eq 68
stop
code=0
chroot --userspec=65534:65534 "$root" /usr/bin/tftpool get -qo - "tftp://$address/.health" || code=$?
must test "$code" -eq 7

# Names and users come from the C library of this machine, which the static binary loads.
serve "$binary" serve --user nobody --host localhost --port 0 "$root/srv/tftp"
must test "$("$binary" get -qo - "tftp://localhost:${address##*:}/file")" = content
must test "$(awk '/^Uid:/ { print $2 }' "/proc/$server/status")" = "$(id -u nobody)"
stop
echo "the static binary serves without libraries and users, and finds names and users where they are"
