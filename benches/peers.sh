#!/bin/sh
# Fetches the servers that `make bench-peers` compares with, into the directory given: Debian's
# packages unpacked beside each other (they conflict when installed), the crates built. What is
# there already is kept; what fails is left out.
set -eu

directory=${1:?usage: peers.sh DIRECTORY}
here=$(dirname "$0")
sh "$here/../tests/servers.sh" "$directory" || echo "peers: some servers are missing" >&2
cd "$directory"

[ -x bin/tftpd ] || cargo install --quiet --locked --root . tftpd@1.0.0 || echo "peers: no tftpd" >&2
[ -x bin/r-tftpd ] || cargo install --quiet --locked --root . r-tftpd@0.4.0 || echo "peers: no r-tftpd" >&2
