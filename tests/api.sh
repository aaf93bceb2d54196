#!/bin/sh
# The public interface, as a list under version control: what rustdoc says of every item, without
# its words. A change of it is a conscious edit: `BLESS=1 sh tests/api.sh` writes the list anew.
# `unversioned` is not in it.
#
# `cargo semver-checks` and `cargo public-api` know more, but the one needs a published version to
# compare with, and the other a nightly compiler; both are minutes of building. See
# docs/decisions.md.
set -eu
export LC_ALL=C
cd "$(dirname "$0")/.."
list=tests/api.txt
pages=${CARGO_TARGET_DIR:-target}/doc/tftpool
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Old pages stay where rustdoc put them: take those that are linked.
rm -rf "$pages"
RUSTDOCFLAGS='-D warnings' ${CARGO:-cargo} doc --quiet --locked --no-deps --all-features

# page NAME < HTML : one line for its declaration, one for each method, one for each trait that says
# something.
page() {
    tr '\n' ' ' |
        sed 's/<pre class="rust item-decl">/\n= &/g; s/<h4 class="code-header">pub /\n= &/g; s/id="impl-/\n= impl-/g
             s/<\/pre>/\n/g; s/<\/h4>/\n/g' |
        sed -n 's/^= //p' |
        sed 's/^\(impl-[^"]*\)".*/\1/; s/<[^>]*>//g; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g; s/  */ /g; s/ *$//; s/ ⓘ$//' |
        grep -Ev '^impl-.*-for-(&?T|%.*)$|^impl-[A-Za-z]*(-[0-9]+)?$|^impl-(Freeze|(Ref|Unsafe)?Unwind.*|UnsafeUnpin|Unpin|Structural.*)-for-' |
        sort -u | sed "s|^|$1: |"
}

rustc --version | cut -d ' ' -f 1,2 | sed 's/^/# /' >"$scratch/list"
(cd "$pages" && find . -maxdepth 1 -name '*.*.html' && find ./testing -maxdepth 1 -name '*.*.html') | sort |
    while read -r path; do
        name=${path#./}
        page "${name%.html}" <"$pages/$path"
    done >>"$scratch/list"

if [ -n "${BLESS:-}" ]; then
    cp "$scratch/list" "$list"
elif [ "$(head -n 1 "$list")" != "$(head -n 1 "$scratch/list")" ]; then
    # Compilers write declarations each in their own way. The names of the items are the same for
    # all of them.
    for side in "$list" "$scratch/list"; do sed -n 's/^\([^ #]*\): .*/\1/p' "$side" | sort -u >"$scratch/$(basename "$side").names"; done
    if ! diff -u "$scratch/$(basename "$list").names" "$scratch/list.names"; then
        echo "the public interface has other items; if that was meant, BLESS=1 sh tests/api.sh" >&2
        exit 1
    fi
    echo "$list: names are compared, declarations are not: it was made by another compiler, $(head -n 1 "$list" | sed 's|^# ||')"
elif ! diff -u "$list" "$scratch/list"; then
    echo "the public interface has changed; if that was meant, BLESS=1 sh tests/api.sh" >&2
    exit 1
fi
