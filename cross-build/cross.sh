#!/usr/bin/env bash
# Builds petrel for the targets of cross-build/targets, and what a release has beside it. Usage: cross.sh VERSION [TARGET...], a target
# as os-arch, linux-armv6 among them; without any: all.
#
#   dist/petrel-OS-ARCH[.exe]          the binary, static and stripped
#   dist/petrel-linux-ARCH.zst         the same as a device downloads it, held to its budget
#   dist/petrel-OS-ARCH.tar.gz         the binary, licences, bill of materials; on Linux units, man pages and completion too
#   dist/petrel-OS-ARCH.spdx.json      the bill of materials: SPDX 2.3
#   dist/petrel_VERSION_ARCH.deb       Debian packages
#   dist/install.sh                    what downloads, checks and installs
#   dist/SHA256SUMS[.minisig]          the digest of each, and their signature
#
# DIST=DIR is another directory than dist; it has files of one version only. BINARIES=only builds nothing beside the binaries.
# SIGN_KEY=FILE is a secret key as minisign keeps it, SIGN_PASSWORD its password. BASE_URL=URL is where the release will be published,
# for install.sh. MAINTAINER='NAME <ADDRESS>' is for the packages.
#
# Two builds of one commit with one Go, one zstd and one C compiler give the same bytes: all times are the commit's, and paths are left
# out. cross-build/reproduce.sh tests that.
set -euo pipefail
export LC_ALL=C
umask 022

version=${1:?usage: cross.sh VERSION [TARGET...]}
shift
cd "$(dirname "$0")/.."
top=$PWD
go=${GO:-go} dist=${DIST:-$PWD/dist}
budget=40000000 # bytes of a .zst, as TestBinarySize has it
export CGO_ENABLED=0
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
ldflags="-s -w -buildid= -X petrel.dev/petrel/internal/buildinfo.version=$version"

mkdir -p "$dist"
dist=$(cd "$dist" && pwd)
if [ "$version" != "$(cat "$dist/VERSION" 2>/dev/null)" ]; then
  rm -f "$dist"/petrel[-_]* "$dist"/SHA256SUMS* "$dist/install.sh" "$dist/petrel.pub"
fi
echo "$version" >"$dist/VERSION"
stage=$(mktemp -d)
beside=() # processes that pack what was built, the oldest first
trap 'wait; rm -rf "$stage"' EXIT

# debian NAME: the architectures of Debian that a target is for. ARMv7 has none: what Debian calls armhf is ARMv7, what Raspberry Pi OS
# calls so runs on ARMv6 too, and a package cannot tell one from the other. The binary for ARMv6 serves both, and Debian's armel.
debian() {
  case $1 in
    linux-amd64 | linux-arm64 | linux-riscv64) echo "${1#linux-}" ;;
    linux-armv6) echo armhf armel ;;
  esac
}

# tools builds, for this machine, what makes all that is beside the binaries; and what petrel itself writes: man pages and completion.
tools() {
  local shell
  $go build -C cross-build/pack -buildvcs=false -o "$stage/pack" .
  $go build -trimpath -buildvcs=false -tags grpcnotrace -ldflags "$ldflags" -o "$stage/petrel" ./cmd/petrel
  "$stage/petrel" docs --man "$stage/man" >/dev/null
  mkdir "$stage/completion"
  for shell in bash zsh fish; do
    "$stage/petrel" completion $shell >"$stage/completion/$shell"
  done
  rm "$stage/petrel"
}

# build OS ARCH ARM NAME: the binary and its bill of materials. What is packed of them is so while the next one is built: zstd and gzip use
# one processor for minutes.
build() {
  local tags=grpcnotrace exe= programs= texts=$stage/$4/THIRD_PARTY_LICENSES.txt
  [ "$1" = windows ] && exe=.exe
  if [ "$1" = linux ]; then
    GO=$go cross-build/programs.sh "$2"
    tags+=,embedded programs=bin/programs/$2
  fi
  echo "== $4"
  GOOS=$1 GOARCH=$2 GOARM=$3 $go build -trimpath -buildvcs=false -tags "$tags" -ldflags "$ldflags" -o "$dist/petrel-$4$exe" ./cmd/petrel
  [ "${BINARIES:-}" != only ] || return 0
  mkdir "$stage/$4"
  GO=$go "$stage/pack" sbom -root "$top" -programs "$programs" -version "$version" -spdx "$dist/petrel-$4.spdx.json" -licenses "$texts" "$dist/petrel-$4$exe"
  if [ ${#beside[@]} -ge 2 ]; then next; fi
  rest "$1" "$4" "$exe" "$texts" &
  beside+=($!)
}

# next waits for the oldest of them, which has to succeed.
next() {
  wait "${beside[0]}"
  beside=("${beside[@]:1}")
}

# rest OS NAME EXE LICENCES: the archive, and for Linux the compressed binary and packages.
rest() {
  local size
  archive "$@"
  if [ "$1" = linux ]; then
    zstd -q -19 -T1 -f "$dist/petrel-$2" -o "$dist/petrel-$2.zst"
    size=$(stat -c %s "$dist/petrel-$2.zst")
    [ "$size" -le $budget ] || { echo "cross: petrel-$2 has $size bytes compressed, the budget is $budget" >&2; exit 1; }
    packages "$2" "$4"
  fi
  echo "== $2: done"
}

# archive OS NAME EXE LICENCES: one in which all times and owners are the same.
archive() {
  local dir=$stage/$2/archive
  mkdir "$dir"
  install -m 755 "$dist/petrel-$2$3" "$dir/petrel$3"
  install -m 644 LICENSE "$4" "$dir/"
  install -m 644 "$dist/petrel-$2.spdx.json" "$dir/petrel.spdx.json"
  if [ "$1" = linux ]; then
    install -m 644 cross-build/systemd/*.service "$dir/"
    install -D -m 644 -t "$dir/man/man1" "$stage"/man/*.1
  fi
  [ "$1" = windows ] || install -D -m 644 -t "$dir/completion" "$stage"/completion/*
  chmod 755 "$dir"
  tar -c -C "$dir" --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner . | gzip -9n >"$dist/petrel-$2.tar.gz"
  rm -rf "$dir"
}

# packages NAME LICENCES
packages() {
  local arch
  for arch in $(debian "$1"); do
    "$stage/pack" deb -version "$version" -arch "$arch" -maintainer "${MAINTAINER:-Petrel developers <noreply@petrel.dev>}" \
      -binary "$dist/petrel-$1" -man "$stage/man" -completion "$stage/completion" -sbom "$dist/petrel-$1.spdx.json" \
      -licenses "LICENSE,$2" "$dist"
  done
}

# sign makes the digests, their signature where there is a key for it, and install.sh, which has the public one.
sign() {
  local key=
  rm -f "$dist/SHA256SUMS.minisig" "$dist/petrel.pub"
  if [ -n "${SIGN_KEY:-}" ]; then
    # Once for the public key, which install.sh has, whose digest is among those that are signed.
    : >"$stage/nothing"
    "$stage/pack" sign -key "$SIGN_KEY" -public "$dist/petrel.pub" "$stage/nothing"
    key=$(sed -n 2p "$dist/petrel.pub")
  fi
  sed -e "s|^key=''\$|key='$key'|" -e "s|^url=''\$|url='${BASE_URL:-}'|" cross-build/install.sh >"$dist/install.sh"
  (
    cd "$dist"
    shopt -s nullglob
    files=(petrel-* petrel_*.deb install.sh)
    [ -z "$key" ] || files+=(petrel.pub)
    sha256sum "${files[@]}" >SHA256SUMS
  )
  if [ -n "$key" ]; then
    "$stage/pack" sign -key "$SIGN_KEY" -comment "petrel $version" -public "$dist/petrel.pub" "$dist/SHA256SUMS"
    echo "cross: signed with the key $key"
  else
    echo "cross: NOT SIGNED: SIGN_KEY=FILE gives a key, which \`minisign -G\` makes" >&2
  fi
}

[ "${BINARIES:-}" = only ] || tools
while read -r os arch arm; do
  name=$os-$arch${arm:+v$arm}
  if [ $# -eq 0 ] || [[ " $* " == *" $name "* ]]; then
    build "$os" "$arch" "${arm:-}" "$name" </dev/null
  fi
done < <(grep -v '^#' cross-build/targets)
while [ ${#beside[@]} -gt 0 ]; do next; done
[ "${BINARIES:-}" = only ] || sign
