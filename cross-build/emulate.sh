#!/usr/bin/env bash
# Runs what `make cross` makes for other architectures under qemu's user emulation: each program says its version, and the tests of the
# store, the wire format and the scheduler pass. Usage: emulate.sh [TARGET...], as cross.sh has them (linux ones only); without any: all.
#
# QUICK=1 leaves out petrel itself and the tests, which take long to build: the programs inside only. SHORT=1, as in `make test`, is
# the tests alone, and needs no C compiler; PACKAGES chooses them.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
# Beside those three, what counts with numbers that clients give or that only grow: an int of 32 bits must do for them.
packages=${PACKAGES:-./internal/wire ./sched ./sqlstore/... ./svcproxy ./hub/control/rollout ./hub/apiserver/fairness}
export CGO_ENABLED=0

# emulated NAME ARCH ARM COMMAND...: on the oldest processor that the target is for.
emulated() {
  local qemu cpu=
  case $2$3 in
    amd64) qemu=qemu-x86_64-static cpu=qemu64 ;;           # x86-64-v1
    arm64) qemu=qemu-aarch64-static cpu=cortex-a53 ;; # Raspberry Pi 3
    arm7) qemu=qemu-arm-static cpu=cortex-a7 ;;       # Raspberry Pi 2
    arm6) qemu=qemu-arm-static cpu=arm1176 ;;         # Raspberry Pi 1 and Zero
    riscv64) qemu=qemu-riscv64-static cpu=rv64 ;;
  esac
  shift 3
  QEMU_CPU=$cpu PETREL_TEST_EMULATOR=$(command -v $qemu) $qemu "$@"
}

# expect TEXT COMMAND...: the command's output has the text.
expect() {
  local want=$1 got
  shift
  got=$("$@" 2>&1) || true
  [[ $got == *"$want"* ]] || { echo "emulate: ${*:5} does not say \"$want\" but: $got" >&2; exit 1; }
}

programs() {
  local name=$1 arch=$2 arm=$3
  GO=$go cross-build/programs.sh "$arch"
  expect "runc version" emulated "$name" "$arch" "$arm" "bin/programs/$arch/runc" --version
  expect '"SCMP_ACT_ERRNO"' emulated "$name" "$arch" "$arm" "bin/programs/$arch/runc" features
  expect "Version:" emulated "$name" "$arch" "$arm" "bin/programs/$arch/containerd-shim-runc-v2" -v
  expect "configuration FILE" emulated "$name" "$arch" "$arm" "bin/programs/$arch/containerd"
  echo "emulate $name: the programs inside run"
}

# petrel runs what `make cross` has left in dist/, of whatever commit that is (emulate says its version), and otherwise builds it.
petrel() {
  local name=$1 arch=$2 arm=$3 dir=dist version
  if [ ! -x "dist/petrel-$name" ]; then
    dir=bin/emulate
    GO=$go DIST=$dir BINARIES=only cross-build/cross.sh emulated "$name"
  fi
  version=$(cat $dir/VERSION)
  expect "petrel $version (" emulated "$name" "$arch" "$arm" "$dir/petrel-$name" version --client
  echo "emulate $name: petrel $version runs"
}

# tests builds with the flags of cross.sh, which has compiled most of it.
tests() {
  local name=$1 arch=$2 arm=$3 p dir
  mkdir -p bin/emulate
  for p in $($go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' $packages); do
    dir=$($go list -f '{{.Dir}}' "$p")
    GOOS=linux GOARCH=$arch GOARM=$arm $go test -c -trimpath -tags grpcnotrace -o "bin/emulate/$name.test" "$p"
    (cd "$dir" && emulated "$name" "$arch" "$arm" "$OLDPWD/bin/emulate/$name.test" -test.short -test.timeout 30m) || { echo "emulate $name: $p fails" >&2; exit 1; }
    echo "emulate $name: $p passes"
  done
  rm -f "bin/emulate/$name.test"
}

check() {
  if [ -n "${SHORT:-}" ]; then tests "$@"; return; fi
  programs "$@"
  [ -z "${QUICK:-}" ] || return 0
  petrel "$@"
  tests "$@"
}

while read -r os arch arm; do
  name=$os-$arch${arm:+v$arm}
  if [ "$os" = linux ] && { [ $# -eq 0 ] || [[ " $* " == *" $name "* ]]; }; then
    check "$name" "$arch" "${arm:-}" </dev/null
  fi
done < <(grep -v '^#' cross-build/targets)
