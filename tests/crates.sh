#!/bin/sh
# The closed list of crates: what cargo builds into tftpool is exactly what deny.toml allows, and
# the bare library stands on five crates and no async runtime. Needs nothing but cargo; cargo-deny,
# where installed, checks licences and sources too.
set -eu
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# same TITLE WANTED FOUND : fails with the difference.
same() {
    diff -u "$2" "$3" >"$scratch/difference" && return
    echo "$1:" >&2
    sed 1,2d "$scratch/difference" >&2
    exit 1
}

names() { cut -d ' ' -f 1 | sort -u; }

sed -n 's/^ *{ crate = "\([^"]*\)".*/\1/p' deny.toml | sort -u >"$scratch/allowed"
cargo tree --locked --edges normal,build --prefix none --all-features >"$scratch/tree"
names <"$scratch/tree" >"$scratch/built"
same "deny.toml (-) and what is built (+) differ" "$scratch/allowed" "$scratch/built"

printf '%s\n' crossbeam-channel log memmap2 mio nix >"$scratch/five"
cargo tree --locked --edges normal --prefix none --depth 1 --no-default-features >"$scratch/tree"
sed 1d "$scratch/tree" | names >"$scratch/direct"
same "the library's own crates (-) and what it depends on (+) differ" "$scratch/five" "$scratch/direct"

if grep -E '^(tokio|async-.*|futures.*|smol)$' "$scratch/built"; then
    echo "an async runtime is built in" >&2
    exit 1
fi

if cargo deny --version >/dev/null 2>&1; then
    cargo deny --log-level error check bans licenses sources
fi
