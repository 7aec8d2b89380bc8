#!/bin/bash
# Runs every test that docs/security.md names, at full size: `make hostile`. The argument is the go command.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
go=${1:-go}
names=$(grep -o '\bTest[A-Z][A-Za-z0-9_]*' docs/security.md | sort -u | paste -sd'|')
packages=$(grep -rlE --include='*_test.go' "^func ($names)\(t \*testing\.T\)" . | grep -vE '^\./test/(hostile|conformance)/' | xargs -r dirname | sort -u)
[ -n "$packages" ] || { echo 'docs/security.md names no test' >&2; exit 1; }
bad=0
# One package at a time: many of them look at the memory and the descriptors of the whole machine, or of what they start.
# -v prints the figures of docs/performance.md.
"$go" test -count=1 -v -timeout 40m ./test/hostile/... || bad=1
# shellcheck disable=SC2086 # a word for each package
"$go" test -count=1 -timeout 40m -p 1 -run "^($names)\$" $packages || bad=1
exit $bad
