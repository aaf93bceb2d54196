#!/bin/sh
# Fetches the servers of other people that the client and the benchmark talk to, into the directory
# given: Debian's packages, unpacked beside each other because they conflict when installed. What is
# there already is kept.
set -eu

directory=${1:?usage: servers.sh DIRECTORY}
mkdir -p "$directory/deb" "$directory/packages"
cd "$directory"

command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
    echo "servers: apt-get and dpkg are needed to fetch tftpd-hpa, atftpd and dnsmasq" >&2
    exit 1
}

# unpack PACKAGE : with fresh lists where it is not found at once.
unpack() {
    (cd packages && apt-get download "$1" >/dev/null 2>&1) ||
        { as_root apt-get update -qq >/dev/null 2>&1 && (cd packages && apt-get download "$1" >/dev/null 2>&1); } ||
        { echo "servers: no package $1" >&2; return 1; }
    dpkg -x packages/"$1"_*.deb deb
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

missing=0
# tftpd-hpa and atftpd both bring an in.tftpd.
if [ ! -e deb/usr/sbin/in.tftpd.hpa ]; then
    if unpack tftpd-hpa; then mv deb/usr/sbin/in.tftpd deb/usr/sbin/in.tftpd.hpa; else missing=1; fi
fi
[ -e deb/usr/sbin/atftpd ] || unpack atftpd || missing=1
[ -e deb/usr/sbin/dnsmasq ] || unpack dnsmasq-base || missing=1
if [ ! -e packages/libraries ]; then
    for library in libwrap0 libnsl2 libtirpc3 libnetfilter-conntrack3 libnfnetlink0 libmnl0; do
        unpack "$library" || missing=1
    done
    [ "$missing" -ne 0 ] || touch packages/libraries
fi
exit "$missing"
