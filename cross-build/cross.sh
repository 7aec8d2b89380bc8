#!/usr/bin/env bash
# Builds petrel for the targets of cross-build/targets, and what a release has beside it. Usage: cross.sh VERSION [TARGET...], a target
# as os-arch, linux-armv6 among them; without any: all.
#
#   dist/petrel-OS-ARCH[.exe]          the binary, static and stripped
#   dist/petrel-linux-ARCH.zst         the same as a device downloads it, held to its budget
#   dist/petrel-OS-ARCH.tar.gz         the binary, the licence, and on Linux the systemd units
#   dist/SHA256SUMS
#
# Two builds of one commit with one Go, one zstd and one C compiler give the same bytes: paths and times are left out.
set -euo pipefail

version=${1:?usage: cross.sh VERSION [TARGET...]}
shift
cd "$(dirname "$0")/.."
go=${GO:-go}
budget=40000000 # bytes of a .zst, as TestBinarySize has it
mkdir -p dist
export CGO_ENABLED=0

# build OS ARCH ARM NAME
build() {
  local tags=grpcnotrace exe=
  [ "$1" = windows ] && exe=.exe
  if [ "$1" = linux ]; then
    GO=$go cross-build/programs.sh "$2"
    tags+=,embedded
  fi
  echo "== $4"
  GOOS=$1 GOARCH=$2 GOARM=$3 $go build -trimpath -buildvcs=false -tags "$tags" \
    -ldflags "-s -w -buildid= -X petrel.dev/petrel/internal/buildinfo.version=$version" -o "dist/petrel-$4$exe" ./cmd/petrel
  pack "$1" "$4" "$exe"
  if [ "$1" = linux ]; then
    zstd -q -19 -f "dist/petrel-$4" -o "dist/petrel-$4.zst"
    local size
    size=$(stat -c %s "dist/petrel-$4.zst")
    [ "$size" -le $budget ] || { echo "cross: petrel-$4 has $size bytes compressed, the budget is $budget" >&2; exit 1; }
  fi
}

# pack OS NAME EXE: the archive in which all times and owners are the same.
pack() {
  local stage
  stage=$(mktemp -d)
  install -m 755 "dist/petrel-$2$3" "$stage/petrel$3"
  install -m 644 LICENSE "$stage/"
  [ "$1" != linux ] || install -m 644 cross-build/systemd/*.service "$stage/"
  tar -c -C "$stage" --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner . | gzip -9n >"dist/petrel-$2.tar.gz"
  rm -rf "$stage"
}

while read -r os arch arm; do
  name=$os-$arch${arm:+v$arm}
  if [ $# -eq 0 ] || [[ " $* " == *" $name "* ]]; then
    build "$os" "$arch" "${arm:-}" "$name" </dev/null
  fi
done < <(grep -v '^#' cross-build/targets)
(cd dist && sha256sum petrel-* >SHA256SUMS)
