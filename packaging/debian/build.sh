#!/bin/sh
# Makes a Debian package of an installation below DIRECTORY/root (make deb). Needs dpkg-dev.
#
# One binary, a few files and three short scripts: dpkg-deb packs them as they are, and
# dpkg-shlibdeps finds out which libraries the binary needs.
set -eu
cd "$(dirname "$0")/../.."
out=${1:?usage: build.sh DIRECTORY}
root=$out/root
here=packaging/debian

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)-1
maintainer=${MAINTAINER:-tftpool authors <tftpool@packages.invalid>}
architecture=$(dpkg --print-architecture)
# The same package from the same commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
export SOURCE_DATE_EPOCH

mkdir -p "$root/DEBIAN" "$out/debian"
doc=$root/usr/share/doc/tftpool

# ---- documentation as Debian wants it
rm -f "$doc"/LICENSE-*
license=$(sed -n '/^Permission/,$s/^$/./; /^Permission/,$s/^/ /p' LICENSE-MIT)
awk -v text="$license" '$0 == "@MIT@" { print text; next } { print }' $here/copyright >"$doc/copyright"
mv "$doc/CHANGELOG.md" "$doc/changelog"
cat >"$doc/changelog.Debian" <<END
tftpool ($version) unstable; urgency=medium

  * What has changed is in changelog.gz.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
END
gzip -9n "$doc/changelog" "$doc/changelog.Debian"
find "$root/usr/share/man" -name '*.1' -exec gzip -9n {} +

# ---- control files
printf 'Source: tftpool\n\nPackage: tftpool\nArchitecture: any\n' >"$out/debian/control"
libraries=$(cd "$out" && dpkg-shlibdeps -O -e root/usr/bin/tftpool | sed -n 's/^shlibs:Depends=//p')
rm -r "$out/debian"
install -m 755 $here/postinst $here/prerm $here/postrm "$root/DEBIAN/"
echo /etc/default/tftpool >"$root/DEBIAN/conffiles"
(cd "$root" && find usr lib -type f -exec md5sum {} + 2>/dev/null | sort -k 2) >"$root/DEBIAN/md5sums"
cat >"$root/DEBIAN/control" <<END
Package: tftpool
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
Depends: $libraries, passwd
Suggests: systemd
Section: net
Priority: optional
Description: TFTP server that boots every board, and a client
 Serves a directory over TFTP (RFC 1350) with the options blksize, tsize,
 timeout and windowsize, from a bounded pool of threads. The service is started
 by a socket unit and runs without root and without capabilities.
 .
 The same command fetches and stores files, and finds out what another server
 can do.
END
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group --build "$root" "$out/tftpool_${version}_$architecture.deb"
