#!/bin/sh
# Installs, upgrades, removes and purges the package in a Debian root of its own, and fetches a file
# from its server with curl (make deb-test). Needs root, and debootstrap with a mirror or DEBROOT.
set -eu
out=${1:?usage: deb.sh DIRECTORY}
package=$(ls "$out"/tftpool_*.deb)
[ "$(id -u)" -eq 0 ] || { echo "make deb-test needs root" >&2; exit 1; }

# ---- inside a network and a mount namespace of our own
if [ "${2:-}" = inside ]; then
    root=$out/chroot
    inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }
    must() { "$@" || { echo "failed: $*" >&2; exit 1; }; }
    must_not() { if "$@"; then echo "must fail: $*" >&2; exit 1; fi; }
    files() { (cd "$root" && find . -xdev -path ./proc -prune -o -path ./tmp -prune -o -path ./var/lib/dpkg -prune -o \
        -path ./var/log -prune -o -path ./var/cache -prune -o -print | sort); }
    ip link set lo up
    mount -t proc proc "$root/proc"
    cp "$package" "$root/tmp/first.deb"
    cp "$out/second.deb" "$root/tmp/second.deb"
    files >"$out/before"

    echo "== install"
    inside dpkg -i /tmp/first.deb >"$out/said" 2>&1 || { cat "$out/said"; exit 1; }
    must_not grep -q "port 69" "$out/said"
    must inside getent passwd tftpool >/dev/null
    must test "$(inside tftpool --version)" = "tftpool $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)"
    must test -d "$root/srv/tftp"
    for unit in tftpool.service tftpool.socket; do
        must test -f "$root/lib/systemd/system/$unit"
    done
    # Both start with the system.
    must test -L "$root/etc/systemd/system/sockets.target.wants/tftpool.socket"
    must test -L "$root/etc/systemd/system/multi-user.target.wants/tftpool.service"

    echo "== serve"
    echo content >"$root/srv/tftp/file"
    # Not by a function: its shell would be what `kill` ends.
    chroot "$root" tftpool serve 2>"$out/log" &
    server=$!
    for _ in $(seq 100); do grep -q "serving /srv/tftp on" "$out/log" && break; sleep 0.1; done
    must test "$(curl -s --max-time 20 tftp://127.0.0.1/file)" = content

    echo "== upgrade, while port 69 is taken"
    echo 'TFTPOOL_OPTIONS="-v"' >"$root/etc/default/tftpool"
    inside dpkg -i /tmp/second.deb >"$out/said" 2>&1 || { cat "$out/said"; exit 1; }
    must grep -q "UDP port 69 is in use by another program" "$out/said"
    must grep -q -- -v "$root/etc/default/tftpool"
    kill $server
    wait $server || true

    echo "== remove"
    inside dpkg -r tftpool >"$out/said" 2>&1 || { cat "$out/said"; exit 1; }
    must_not test -e "$root/usr/bin/tftpool"
    must test -e "$root/etc/default/tftpool"

    echo "== purge"
    inside dpkg -P tftpool >"$out/said" 2>&1 || { cat "$out/said"; exit 1; }
    must_not test -e "$root/etc/default/tftpool"
    must test -f "$root/srv/tftp/file"
    rm "$root/srv/tftp/file"
    rmdir "$root/srv/tftp"
    # The user stays, with backups of its databases.
    files | grep -Ev '^\./etc/(passwd|shadow|group|gshadow|subuid|subgid)-$' >"$out/after"
    grep -Ev '^\./etc/(passwd|shadow|group|gshadow|subuid|subgid)-$' "$out/before" | diff - "$out/after" || {
        echo "left behind by the package" >&2
        exit 1
    }
    umount "$root/proc"
    echo "the package installs, serves, upgrades and goes"
    exit 0
fi

# ---- outside: a root, and a second version
if command -v lintian >/dev/null; then
    lintian --fail-on error --tag-display-limit 0 "$package"
else
    echo "skipped: no lintian here"
fi
base=${DEBROOT:-$out/base}
if [ ! -d "$base" ]; then
    command -v debootstrap >/dev/null || { echo "make deb-test needs debootstrap, or DEBROOT" >&2; exit 1; }
    debootstrap --variant=minbase bookworm "$base" >"$out/debootstrap.log" || { tail "$out/debootstrap.log" >&2; exit 1; }
fi
rm -rf "$out/chroot" "$out/repack"
cp -a --reflink=auto "$base" "$out/chroot"
dpkg-deb -R "$package" "$out/repack"
sed -i 's/^\(Version: .*\)$/\1+1/' "$out/repack/DEBIAN/control"
dpkg-deb --root-owner-group --build "$out/repack" "$out/second.deb" >/dev/null
unshare --mount --net sh "$0" "$out" inside
rm -rf "$out/chroot" "$out/repack"
