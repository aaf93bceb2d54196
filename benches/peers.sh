#!/bin/sh
# Fetches the servers that `make bench-peers` compares with, into the directory given: Debian's packages unpacked beside
# each other (they conflict when installed), the crates built. What is there already is kept; what fails is left out.
set -eu

directory=${1:?usage: peers.sh DIRECTORY}
mkdir -p "$directory/deb" "$directory/packages"
cd "$directory"

unpack() {
    (cd packages && apt-get download "$1" >/dev/null 2>&1) || { echo "peers: no package $1" >&2; return 0; }
    dpkg -x packages/"$1"_*.deb deb
}

if command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
    # tftpd-hpa and atftpd both bring an in.tftpd.
    if [ ! -e deb/usr/sbin/in.tftpd.hpa ]; then
        unpack tftpd-hpa
        if [ -e deb/usr/sbin/in.tftpd ]; then mv deb/usr/sbin/in.tftpd deb/usr/sbin/in.tftpd.hpa; fi
    fi
    [ -e deb/usr/sbin/atftpd ] || unpack atftpd
    [ -e deb/usr/sbin/dnsmasq ] || unpack dnsmasq-base
    if [ ! -e packages/libraries ]; then
        for library in libwrap0 libnsl2 libtirpc3 libnetfilter-conntrack3 libnfnetlink0 libmnl0; do unpack "$library"; done
        touch packages/libraries
    fi
fi

[ -x bin/tftpd ] || cargo install --quiet --locked --root . tftpd@1.0.0 || echo "peers: no tftpd" >&2
[ -x bin/r-tftpd ] || cargo install --quiet --locked --root . r-tftpd@0.4.0 || echo "peers: no r-tftpd" >&2
