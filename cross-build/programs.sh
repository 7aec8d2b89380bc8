#!/usr/bin/env bash
# Builds what travels inside petrel for one architecture: containerd (cmd/containerd), its shim (the version of go.mod) and runc (the
# version of cross-build/runc/go.mod, static, with libseccomp). Usage: programs.sh amd64|arm64|arm|riscv64
#
# SECCOMP=system takes the distribution's libseccomp (libseccomp-dev), for builds on and for this machine; otherwise it is built from
# its authors' release, so that a released binary does not depend on the machine that made it.
#
#   bin/programs/ARCH/                    the three programs
#   bin/programs/ARCH/libraries.txt     the C libraries in runc: name, version, licence, file with its text
#   edgeagent/programs/embedded/ARCH.*    the same as one archive, with its manifest; `go build -tags embedded` takes them from there
#
# runc has a part in C, so it needs a C compiler for the architecture. Go builds are cached by the Go tool, libseccomp in bin/programs.
set -euo pipefail

arch=${1:?usage: programs.sh amd64|arm64|arm|riscv64}
cd "$(dirname "$0")/.."
top=$PWD out=$PWD/bin/programs/$arch dest=$PWD/edgeagent/programs/embedded
# 32-bit ARM: one set for ARMv6 and ARMv7. Debian's "armel" compiler makes code for both; its "armhf" only for ARMv7.
case $arch in
  amd64) host=x86_64-linux-gnu debian=amd64 ;;
  arm64) host=aarch64-linux-gnu debian=arm64 ;;
  arm) host=arm-linux-gnueabi debian=armel ;;
  riscv64) host=riscv64-linux-gnu debian=riscv64 ;;
  *) echo "programs: no compiler is known for $arch" >&2; exit 2 ;;
esac
export GOOS=linux GOARCH=$arch GOARM=6
go=${GO:-go}

# libseccomp as its authors publish it. The digest is that of their release; Debian's mirrors carry the same file.
seccomp=2.6.0
seccomp_sha256=83b6085232d1588c379dc9b9cae47bb37407cf262e6e74993c61ba72d2a784dc
seccomp_dir=$top/bin/programs/libseccomp-$seccomp

fetch_seccomp() {
  local file=$seccomp_dir/libseccomp.tar.gz url mirror
  [ -d "$seccomp_dir/src" ] && return
  mkdir -p "$seccomp_dir"
  mirror=${PETREL_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -E '/debian/?$' | head -n1 | sed 's,/$,,' || true)}
  for url in "${mirror:-http://deb.debian.org/debian}/pool/main/libs/libseccomp/libseccomp_$seccomp.orig.tar.gz" \
    "https://github.com/seccomp/libseccomp/releases/download/v$seccomp/libseccomp-$seccomp.tar.gz"; do
    if curl -fsSL --retry 2 -m 120 -o "$file" "$url" && echo "$seccomp_sha256  $file" | sha256sum -c --status; then
      mkdir "$seccomp_dir/src.part"
      tar -xzf "$file" -C "$seccomp_dir/src.part" --strip-components=1
      mv "$seccomp_dir/src.part" "$seccomp_dir/src"
      return
    fi
    echo "programs: $url does not give libseccomp $seccomp" >&2
  done
  exit 1
}

# build_seccomp leaves a static library and its pkg-config file in $seccomp_dir/$host. It is built with relative paths, so that
# nothing in it depends on where this checkout is.
build_seccomp() {
  local lib=$seccomp_dir/$host
  [ -e "$lib/done" ] && return
  fetch_seccomp
  rm -rf "$lib" && cp -a "$seccomp_dir/src" "$lib"
  (
    cd "$lib"
    ./configure --host="$host" --prefix=/petrel --enable-static --disable-shared --disable-python CFLAGS='-O2 -g0' >configure.log 2>&1
    make -C src >make.log 2>&1
    mkdir pkgconfig
    printf 'Name: libseccomp\nDescription: seccomp filters\nVersion: %s\nLibs: -lseccomp\n' "$seccomp" >pkgconfig/libseccomp.pc
  ) || { echo "programs: libseccomp for $host: see $lib/*.log" >&2; exit 1; }
  touch "$lib/done"
}

mkdir -p "$out" "$dest"
# Where the library is goes through the environment: it is part of the key of Go's build cache, and what pkg-config answers is not.
if [ "${SECCOMP:-}" = system ]; then
  export CGO_LDFLAGS="-L/usr/lib/$host" PKG_CONFIG_PATH=/usr/lib/$host/pkgconfig
else
  build_seccomp
  export CGO_CFLAGS="-O2 -I$seccomp_dir/$host/include" CGO_LDFLAGS="-L$seccomp_dir/$host/src/.libs" PKG_CONFIG_LIBDIR=$seccomp_dir/$host/pkgconfig
fi
ldflags='-s -w -buildid='
CGO_ENABLED=0 $go build -trimpath -buildvcs=false -tags grpcnotrace -ldflags "$ldflags" -o "$out/containerd" ./cmd/containerd
CGO_ENABLED=0 $go build -trimpath -buildvcs=false -tags grpcnotrace,no_grpc -ldflags "$ldflags" -o "$out/containerd-shim-runc-v2" \
  github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
CGO_ENABLED=1 CC=$host-gcc $go build -C cross-build/runc -trimpath -buildvcs=false \
  -tags 'seccomp urfave_cli_no_docs netgo osusergo' -ldflags "$ldflags -linkmode external -extldflags '-static -Wl,--build-id=none'" \
  -o "$out/runc" github.com/opencontainers/runc

# What is linked into runc besides Go modules, for the bill of materials (cross-build/pack). Of glibc, Debian has the notices; those of GCC's
# runtime need not be passed on, by its exception.
libc=$(grep -ao 'GNU C Library ([^)]*) [a-z]* release version [0-9.]*[0-9]' "$($host-gcc -print-file-name=libc.a)" | head -n1 | sed 's,.* ,,')
libc_text=
[ "${SECCOMP:-}" != system ] || seccomp=$(pkg-config --modversion libseccomp)
seccomp_text=$seccomp_dir/src/LICENSE
[ "${SECCOMP:-}" != system ] || seccomp_text=/usr/share/doc/libseccomp-dev/copyright
for f in "/usr/share/doc/libc6-dev-$debian-cross/copyright" /usr/share/doc/libc6-dev/copyright /usr/share/doc/libc6/copyright; do
  [ -n "$libc_text" ] || [ ! -e "$f" ] || libc_text=$f
done
printf '%s\n' "libseccomp $seccomp LGPL-2.1-only $seccomp_text" "glibc ${libc:-unknown} LGPL-2.1-or-later ${libc_text:--}" \
  "libgcc $($host-gcc -dumpfullversion) GPL-3.0-or-later_WITH_GCC-exception-3.1 -" >"$out/libraries.txt"

containerd=$($go list -m -f '{{.Version}}' github.com/containerd/containerd/v2)
runc=$($go list -C cross-build/runc -m -f '{{.Version}}' github.com/opencontainers/runc)
manifest=$(cd "$out" && for p in "containerd $containerd" "containerd-shim-runc-v2 $containerd" "runc $runc"; do
  echo "$(sha256sum "${p% *}" | cut -d' ' -f1) $p"
done)
if [ -e "$dest/$arch.tar.zst" ] && [ "$manifest" = "$(cat "$dest/$arch.txt" 2>/dev/null)" ]; then exit 0; fi
tar -c -C "$out" --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=0755 containerd containerd-shim-runc-v2 runc |
  zstd -q -19 -T1 -f -o "$dest/$arch.part"
mv "$dest/$arch.part" "$dest/$arch.tar.zst"
echo "$manifest" >"$dest/$arch.txt"
