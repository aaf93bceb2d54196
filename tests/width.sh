#!/bin/sh
# Prose and comments are at most 100 columns wide. Excepted are tables, code blocks, lines with a
# URL, and lines with a single word, such as the name of a test.
#
#   sh tests/width.sh            every file under version control
#   sh tests/width.sh FILE...    these files
set -eu

[ "$#" -gt 0 ] || {
    cd "$(dirname "$0")/.."
    set -- $(git ls-files -- '*.md' '*.rs' '*.sh' '*.toml' Makefile)
}

wide=0
for file; do
    case $file in
    *.md) marker='' ;;
    *.rs) marker='//[/!]?' ;;
    *) marker='#' ;;
    esac
    # Without the continuation bytes of UTF-8 a byte is a column, whatever awk and locale.
    LC_ALL=C tr -d '\200-\277' <"$file" | LC_ALL=C awk -v file="$file" -v marker="$marker" '
        {
            text = $0
            # A comment behind code, after a space and not in a string, counts for its whole line.
            if (marker != "" && text !~ "^[ \t]*" marker) {
                if (marker == "#" || text !~ /[;,{}()] \/\/ /) next
            } else {
                sub("^[ \t]*" marker, "", text)
            }
            sub(/^[ \t]+/, "", text)
        }
        text ~ /^```/ { is_code = !is_code }
        is_code || length($0) <= 100 || text ~ /^\|/ || text ~ /:\/\// { next }
        {
            sub(/^([-*>]|#+|[0-9]+\.) +/, "", text)
            if (text !~ / /) next
            print file ":" NR ": " length($0) " columns; re-wrap at 100"
            wide = 1
        }
        END { exit wide }
    ' || wide=1
done
exit $wide
