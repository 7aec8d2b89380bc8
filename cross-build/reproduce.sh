#!/usr/bin/env bash
# Builds the release twice and compares every byte. Usage: reproduce.sh [TARGET...], as cross.sh has them; without any: one for Linux and
# one of the command line only.
#
# The two builds have different directories, times of files, time zones, languages, umasks and numbers of processors, and the second
# one's cache is empty, so that it compiles everything again: on two cores a quarter of an hour for each architecture. QUICK=1 lets both use
# the cache of this machine: what is linked, packed and written is made twice all the same.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD go=${GO:-go}
[ $# -gt 0 ] || set -- linux-arm64 windows-amd64
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 1)
export SOURCE_DATE_EPOCH

work=$(mktemp -d "${TMPDIR:-/tmp}/petrel-reproduce-XXXXXX")
cleanup() {
  chmod -R u+w "$work"
  rm -rf "$work"
}
trap cleanup EXIT

# copy DIR TIME: the sources, as they are here, with other times.
copy() {
  local seccomp
  mkdir -p "$1"
  git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- --ignore-failed-read 2>/dev/null | tar -x -C "$1" --touch
  find "$1" -exec touch -h -d "$2" {} +
  # What was downloaded and checked already. It is compiled in both.
  for seccomp in "$top"/bin/programs/libseccomp-*/src; do
    [ ! -d "$seccomp" ] || { mkdir -p "$1/${seccomp#"$top/"}" && cp -a "$seccomp/." "$1/${seccomp#"$top/"}"; }
  done
}

copy "$work/one" 2001-02-03
copy "$work/two/in/another/place" 2026-01-01
echo "reproduce: the first build"
(umask 022 && cd "$work/one" && TZ=UTC LANG=C GO=$go cross-build/cross.sh v0.0.0-reproduced "$@")
echo "reproduce: the second build"
[ -n "${QUICK:-}" ] || export GOCACHE=$work/cache
(umask 077 && cd "$work/two/in/another/place" && TZ=Asia/Kathmandu LANG=C.UTF-8 GOMAXPROCS=1 GO=$go cross-build/cross.sh v0.0.0-reproduced "$@")

a=$work/one/dist b=$work/two/in/another/place/dist
different=0
for f in $( (ls "$a" && ls "$b") | sort -u); do
  if ! cmp "$a/$f" "$b/$f"; then different=1; fi
done
[ "$different" = 0 ] || { echo "reproduce: the two builds differ" >&2; exit 1; }
echo "reproduce: $(ls "$a" | wc -l) files are the same in both builds: $*"
