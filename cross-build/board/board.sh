#!/usr/bin/env bash
# Runs Petrel on an emulated board: Debian's kernel and packages, cgroup v2 only, containers by Debian's containerd and
# runc. It needs qemu and apt, no root, and nothing but a Debian mirror. Usage: board.sh NAME, a line of ./boards.
#
#   bin/board/ARCH-SUITE/   what comes from Debian: packages, kernel, root.ext4; made once
#   bin/board/NAME/         what comes from this checkout: board.ext4 with petrel and the tests; log
#
# The two are disks of the guest; root.ext4 is never written (qemu keeps the guest's writes to itself). The guest's first
# process after the initramfs is guest.sh, or, for the checks `systemd`, `deb`, `openrc`, `firstboot` and `imager`, an init system, which starts services.sh.
# PETREL_BOARD_PATIENCE=N has services.sh wait N seconds for each thing instead of 1200.
# The last line on the serial console is the verdict. The check `mixed` is a test on this machine instead, test/boards, which
# starts and powers off the guest itself; it needs root.
set -euo pipefail

name=${1:?usage: board.sh NAME}
here=$(cd "$(dirname "$0")" && pwd) top=$(cd "$(dirname "$0")/../.." && pwd)
# By default the mirror of this machine's own apt, for which it must be a Debian machine.
mirror=${PETREL_BOARD_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | grep -E '/debian/?$' | head -n1)}
minutes=${PETREL_BOARD_MINUTES:-40}
guest="containerd runc iproute2 nftables busybox-static bash dash coreutils diffutils findutils grep sed mawk procps util-linux mount kmod dpkg libc-bin perl-base systemd systemd-sysv udev openrc"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
export PATH=$PATH:/usr/sbin:/sbin

die() { echo "board $name: $*" >&2; exit 1; }
tell() { echo "board $name: $*"; }

read -r _ arch suite kernel memory append checks < <(grep -E "^$name[[:space:]]" "$here/boards") || die "not in $here/boards"
[ "$append" != - ] || append=
checks=${PETREL_BOARD_CHECKS:-$checks}
[ -n "$mirror" ] || die "apt knows no Debian mirror here: give one with PETREL_BOARD_MIRROR=URL"
base=$top/bin/board/$arch-$suite work=$top/bin/board/$name
# has CHECK...: reports whether the board's checks are among these.
has() { local c; for c; do [[ " $checks " != *" $c "* ]] || return 0; done; return 1; }
services=(systemd deb openrc firstboot imager)
# These checks have petrel as it is released, with containerd, shim and runc inside; the others take Debian's.
embedded=
if has "${services[@]}" mixed; then embedded=1; fi
# A guest whose init system starts it again is not to end at that.
reboot=-no-reboot
if has "${services[@]}"; then reboot=; fi
# cloud-init is in a root file system of its own, so that the other boards are without it and its Python.
if has firstboot; then base+=-cloud guest+=" cloud-init curl passwd"; fi

case $arch in
  amd64) goarch=amd64 qemu=qemu-system-x86_64 console=ttyS0 machine=(-machine q35 -cpu max) ;;
  arm64) goarch=arm64 qemu=qemu-system-aarch64 console=ttyAMA0 machine=(-machine virt -cpu cortex-a72) ;;
  *) die "no machine is known for the architecture $arch" ;;
esac
# A first boot has a serial number to name the node by.
if has firstboot imager; then machine+=(-smbios type=1,serial=10000000A1B2C3D4); fi

# apt with its own sources, lists and an empty package status: it works for any architecture and suite, changes nothing on
# this machine, and needs no root.
apt() {
  local tool=$1; shift
  "$tool" -qq -o Dir::State::lists="$base/lists" -o Dir::State::status="$base/status" -o Dir::Cache::archives="$base/archives" \
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Dir::Etc::sourcelist="$base/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Sandbox::User= -o Debug::NoLocking=1 "$@"
}

fetch() {
  [ -e "$keyring" ] || die "no $keyring: apt-get install debian-archive-keyring"
  mkdir -p "$base"/{lists/partial,archives/partial,kernel}
  : >"$base/status"
  echo "deb [signed-by=$keyring] $mirror $suite main" >"$base/sources.list"
  apt apt-get update
  # shellcheck disable=SC2086
  apt apt-get install -y --no-install-recommends --download-only $guest
  local real
  real=$(apt apt-cache depends "$kernel" | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
  (cd "$base/kernel" && rm -f ./*.deb && apt apt-get download "${real:-$kernel}")
}

# unpack DEB DIR: keeps the links that make /bin and /lib part of /usr.
unpack() { dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink --no-same-owner -C "$2"; }

# root makes the guest's disk, its kernel and its initramfs.
root() {
  local root=$base/root init=$base/init d version m
  rm -rf "$root" "$init"
  mkdir -p "$root"/{usr/bin,usr/sbin,usr/lib,proc,sys,dev,tmp,run,board,etc,root,var/lib} "$init"/{bin,proc,sys,dev,root}
  for d in bin sbin lib; do ln -s "usr/$d" "$root/$d"; done
  for d in "$base"/archives/*.deb "$base"/kernel/*.deb; do unpack "$d" "$root"; done
  ln -s mawk "$root/usr/bin/awk"
  echo 'root:x:0:0:root:/root:/bin/bash' >"$root/etc/passwd"
  echo 'root:x:0:' >"$root/etc/group"
  echo '127.0.0.1 localhost board' >"$root/etc/hosts"
  echo board >"$root/etc/hostname"
  echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
  echo 00000000000000000000000000000b0a >"$root/etc/machine-id"
  rm -rf "$root"/usr/share/{doc,man,locale,perl,info} "$root"/usr/lib/*/{perl,perl5}
  : >"$root/var/lib/dpkg/status"

  version=$(basename "$root"/usr/lib/modules/*)
  depmod -b "$root" "$version"
  cp "$root/boot/vmlinuz-$version" "$base/vmlinuz"
  rm -rf "$root/boot"
  cp "$root/bin/busybox" "$init/bin/busybox"
  for m in virtio_pci virtio_blk ext4; do
    modules "$root/usr/lib/modules/$version" "$m"
  done | awk '!seen[$0]++' >"$init/modules"
  while read -r m; do
    mkdir -p "$init/$(dirname "$m")"
    cp "$root/usr/lib/modules/$version/$m" "$init/$m"
  done <"$init/modules"
  install -m 755 "$here/init" "$init/init"
  (cd "$init" && find . | busybox cpio -o -H newc 2>/dev/null) >"$base/initramfs"
  rm -f "$base/root.ext4"
  mke2fs -q -t ext4 -L root -E root_owner=0:0 -d "$root" "$base/root.ext4" 6G
  rm -rf "$root" "$init"
}

# modules DIR NAME: the files of a module, those it depends on first. What is built in has none.
modules() {
  local line
  line=$(grep -E "/$2\.ko[^/:]*:" "$1/modules.dep") || return 0
  # shellcheck disable=SC2086
  printf '%s\n' ${line/:/ } | tac
}

# petrel FILE ARCH VERSION: the flags are those of cross.sh, so that each finds what the other has compiled.
petrel() {
  local tags=grpcnotrace
  if [ -n "$embedded" ]; then
    "$top/cross-build/programs.sh" "$2"
    tags+=,embedded
  fi
  (cd "$top" && GOOS=linux GOARCH=$2 CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags $tags \
    -ldflags "-s -w -buildid= -X petrel.dev/petrel/internal/buildinfo.version=$3" -o "$1" ./cmd/petrel)
}

# packages DIR makes Debian packages of petrel and petrel-next there, in their place. Man pages and completion are petrel's own, so it has to
# run here.
packages() {
  local dir=$1 stage=$work/package shell n=1 file
  rm -rf "$stage"
  mkdir -p "$stage/completion"
  (cd "$top" && CGO_ENABLED=0 go build -C cross-build/pack -buildvcs=false -o "$stage/pack" .)
  "$dir/petrel" docs --man "$stage/man" >/dev/null
  for shell in bash zsh fish; do "$dir/petrel" completion $shell >"$stage/completion/$shell"; done
  for file in petrel petrel-next; do
    (cd "$top" && SOURCE_DATE_EPOCH=0 "$stage/pack" deb -version "v1.$n" -arch "$arch" -maintainer 'Petrel <petrel@example.org>' -level 1 \
      -binary "$dir/$file" -man "$stage/man" -completion "$stage/completion" -licenses LICENSE "$stage")
    mv "$stage"/petrel_*.deb "$dir/petrel-$n.deb"
    rm "$dir/$file"
    n=2
  done
  rm -rf "$stage"
}

# payload makes the disk with what this checkout has.
payload() {
  local dir=$work/payload p
  rm -rf "$dir"
  mkdir -p "$dir"
  petrel "$dir/petrel" $goarch board-1
  if [ -z "$reboot" ]; then
    has firstboot imager || petrel "$dir/petrel-next" $goarch board-2
    cp "$here/services.sh" "$here/package.sh" "$here/firstboot.sh" "$here/board.service" "$dir/"
  fi
  if has deb; then packages "$dir"; fi
  export GOOS=linux GOARCH=$goarch CGO_ENABLED=0
  local packages=
  if has tests; then packages=$("$here/guest.sh" packages); fi
  for p in $packages; do
    mkdir -p "$dir/src/$p"
    (cd "$top" && go test -c -tags grpcnotrace -ldflags '-s -w' -o "$dir/src/$p/test" "./$p")
    [ ! -d "$top/$p/testdata" ] || cp -r "$top/$p/testdata" "$dir/src/$p/"
  done
  mkdir -p "$dir/src/test/demo"
  cp "$top/test/demo/demo.sh" "$dir/src/test/demo/"
  cp -r "$top/examples" "$dir/src/"
  cp "$here/guest.sh" "$here/limits.sh" "$dir/"
  rm -f "$work/board.ext4"
  mke2fs -q -t ext4 -L board -E root_owner=0:0 -d "$dir" "$work/board.ext4" "$(($(du -sm "$dir" | cut -f1) * 11 / 10 + 32))M"
  rm -rf "$dir"
}

# starter writes the command that starts the guest: start ROOT-DISK NETWORK-OPTIONS KERNEL-ARGUMENTS. It has no_timer_check because on a
# busy machine the emulated timer is late, and the kernel takes it for broken.
starter() {
  cat >"$work/start" <<END
#!/bin/sh
exec $qemu ${machine[*]} -accel tcg,thread=multi -smp ${PETREL_BOARD_CPUS:-2} -m $memory -nographic $reboot \\
  -kernel "$base/vmlinuz" -initrd "$base/initramfs" -append "console=$console loglevel=4 panic=-1 no_timer_check cgroup_no_v1=all $append \$3" \\
  -drive "if=virtio,format=raw,file=\$1" -drive "if=virtio,format=raw,file=$work/board.ext4,readonly=on" -nic "user,model=virtio-net-pci\$2"
END
  chmod +x "$work/start"
}

boot() {
  : >"$work/log"
  # timeout ends qemu, its own child, and nothing else.
  timeout --foreground --kill-after=10 "${minutes}m" "$work/start" "$base/root.ext4,snapshot=on" ,restrict=on "board.checks=${checks// /,}${PETREL_BOARD_PATIENCE:+ board.patience=$PETREL_BOARD_PATIENCE}" \
    </dev/null 2>&1 | sed -u 's/\r//g' | tee "$work/log" || true
  grep -q '^board: PASS$' "$work/log" || die "FAILED, or said nothing within $minutes minutes; see $work/log"
}

# mixed runs the hub and a node here, in network namespaces, and has the guest as the other node.
mixed() {
  local host sudo=
  host=$(cd "$top" && go env GOHOSTARCH)
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  petrel "$work/petrel-here" "$host" board-1
  (cd "$top" && $sudo env "PATH=$PATH" "HOME=$HOME" CGO_ENABLED=0 GOOS= GOARCH= CI=true PETREL_BIN="$work/petrel-here" PETREL_BOARD="$work" PETREL_BOARD_ROOT="$base/root.ext4" \
    go test -count=1 -v -timeout "${minutes}m" ./test/boards) 2>&1 | tee "$work/test.log" || die "FAILED; see $work/test.log, and $work/log of the guest's console"
}

mkdir -p "$work"
# What the Debian part depends on; the rest of this script is not part of it.
recipe=$(declare -f apt fetch unpack root modules; cat "$here/init"; echo "$kernel $mirror $suite $guest")
if [ ! -e "$base/root.ext4" ] || [ "$(cat "$base/recipe" 2>/dev/null)" != "$recipe" ]; then
  tell "getting Debian $suite for $arch"
  fetch
  root
  printf '%s' "$recipe" >"$base/recipe"
fi
tell "building petrel and its tests for $goarch"
payload
starter
tell "booting; the log is $work/log"
if [ "$checks" = mixed ]; then mixed; else boot; fi
tell "PASS"
