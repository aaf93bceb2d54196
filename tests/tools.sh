#!/bin/sh
# Makes sure that the clients which `make test` talks to are installed, through apt-get where one is
# missing, and that the servers are in the directory given.
set -eu

sh "$(dirname "$0")/servers.sh" "${1:?usage: tools.sh DIRECTORY}"

missing=
need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null || missing="$missing $2"
}
need busybox busybox
need tftp tftp-hpa
need atftp atftp
need curl curl
# Only root may make the networks of tests/lab, and forbid a process a system call.
if [ "$(id -u)" -eq 0 ]; then
    need ip iproute2
    need nft nftables
    need strace strace
fi
[ -n "$missing" ] || exit 0

as_root=
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
if command -v apt-get >/dev/null && $as_root true 2>/dev/null; then
    echo "installing:$missing"
    $as_root apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "the tests need these packages:$missing (as root: apt-get install$missing)" >&2
exit 1
