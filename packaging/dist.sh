#!/bin/sh
# Makes a source archive that builds without a network, and its checksum (make dist). What is packed
# is the commit that is checked out.
set -eu
cd "$(dirname "$0")/.."
out=${1:?usage: dist.sh DIRECTORY}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=tftpool-$version

rm -rf "$out"
mkdir -p "$out"
git archive --prefix="$name/" HEAD | tar -x -C "$out"
mkdir -p "$out/$name/.cargo"
(cd "$out/$name" && ${CARGO:-cargo} vendor --locked vendor >.cargo/config.toml 2>../vendor.log) ||
    { cat "$out/vendor.log" >&2; exit 1; }
# cargo prints nothing with --quiet.
grep -q vendored-sources "$out/$name/.cargo/config.toml"
rm "$out/vendor.log"
# The same bytes from the same commit.
tar -C "$out" --sort=name --mtime="@$(git log -1 --format=%ct)" --owner=0 --group=0 --numeric-owner \
    -cf - "$name" | xz -T 0 -6 >"$out/$name.tar.xz"
rm -rf "${out:?}/$name"
(cd "$out" && sha256sum "$name.tar.xz" >SHA256SUMS && cat SHA256SUMS)
