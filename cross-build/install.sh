#!/bin/sh
# Installs petrel from a release, whose digests and signature it checks. `sh install.sh --help` says how.
#
# It is for any POSIX shell, with curl or wget, and minisign or OpenSSL 3. Everything is in functions that the last line calls, so that a
# download that broke off does nothing.
set -eu

# The build of a release fills these in: the public key that its digests are signed with, and where it is published.
key=''
url=''

name=petrel
to=/usr/local/bin
from=''
digest_only='' arch='' want='' work=''

usage() {
  cat <<EOF
usage: sh install.sh [--from URL|DIR] [--key KEY|FILE] [--version VERSION] [--arch ARCH] [--to DIR] [--digest-only] [hub|agent [FLAGS...]]

Downloads petrel for this machine, checks it, and places it as $to/petrel. What is there already is not downloaded again.
With hub or agent, petrel installs that as a service: the flags behind it are those of \`petrel install hub\` and \`petrel install agent\`.

  --from URL|DIR     where the release is; without it, beside this script${url:+, or $url}
  --key KEY|FILE     the public key of the release, as minisign has it${key:+; without it $key}
  --version VERSION  refuse any other version
  --arch ARCH        amd64, arm64, armv7, armv6 or riscv64, when it is not that of this machine
  --to DIR           another directory than $to
  --digest-only      do without the signature: whoever can change the release can change its digests too
EOF
}

die() {
  echo "install.sh: $*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# value OPTION ARGUMENTS...: the option has one behind it.
value() { [ $# -gt 1 ] && [ -n "$2" ] || die "$1 needs a value"; }

# machine says what this machine is called among the release's files: os-arch.
machine() {
  os=$(uname -s)
  case $os in
    Linux) os=linux ;;
    Darwin) os=darwin ;;
    *) die "petrel is not built for $os" ;;
  esac
  if [ -z "$arch" ]; then
    cpu=$(uname -m)
    case $cpu in
      x86_64 | amd64) arch=amd64 ;;
      aarch64 | arm64)
        arch=arm64
        # Raspberry Pi OS of 32 bits has a kernel of 64. Its processors can do ARMv7.
        if [ "$os" = linux ] && [ "$(userland)" = 32 ]; then arch=armv7; fi
        ;;
      armv7* | armv8l) arch=armv7 ;;
      armv6*) arch=armv6 ;;
      riscv64) arch=riscv64 ;;
      *) die "petrel is not built for $cpu; --arch takes amd64, arm64, armv7, armv6 or riscv64" ;;
    esac
  fi
  echo "$os-$arch"
}

# userland says of how many bits the programs of this machine are.
userland() {
  if have getconf && getconf LONG_BIT 2>/dev/null; then return; fi
  # The fifth byte of a program is 1 for 32 bits.
  case $(od -An -tu1 -j4 -N1 /bin/sh 2>/dev/null) in
    *1*) echo 32 ;;
    *) echo 64 ;;
  esac
}

# fetch NAME FILE: copies a file of the release. Returns 1 when it cannot be had.
fetch() {
  case $from in
    http://* | https://*)
      if have curl; then
        curl -fsSL --retry 3 --connect-timeout 30 --speed-limit 1 --speed-time 60 -o "$2" "$from/$1" || return 1
      elif have wget; then
        wget -q -O "$2" "$from/$1" || return 1
      else
        die "neither curl nor wget is here: install one, or give --from a directory"
      fi
      ;;
    *)
      [ -f "$from/$1" ] || return 1
      cp "$from/$1" "$2" || return 1
      ;;
  esac
}

# full adds, where that is so, that the disk is full.
full() {
  free=$(df -Pk "$to" 2>/dev/null | awk 'NR == 2 { print $4 }')
  [ "${free:-99999}" -ge 1024 ] || echo ": no space is left in $to ($free KiB)"
}

# digest FILE
digest() {
  if have sha256sum; then
    sha256sum "$1" | cut -d' ' -f1
  elif have shasum; then
    shasum -a 256 "$1" | cut -d' ' -f1
  elif have openssl; then
    openssl dgst -sha256 -r "$1" | cut -d' ' -f1
  else
    die "nothing here computes SHA-256: install coreutils or openssl"
  fi
}

# published NAME: the digest that the release has for a file; nothing when it has none.
published() {
  awk -v name="$1" '$2 == name || $2 == "*" name { print $1; n++ } END { if (n > 1) exit 1 }' "$work/SHA256SUMS" ||
    die "SHA256SUMS names $1 twice"
}

# verify SUMS SIGNATURE
verify() {
  if [ -f "$key" ]; then key=$(sed -n 2p "$key"); fi
  if have minisign; then
    minisign -V -q -P "$key" -m "$1" -x "$2" >&2 || die "the signature of the release is not that of the key $key: nothing was installed"
  elif have openssl && openssl pkeyutl -help 2>&1 | grep -q rawin; then
    verify_openssl "$1" "$2"
  else
    die "nothing here can check the signature: install minisign, or OpenSSL 3, or do without it: --digest-only"
  fi
  comment=$(sed -n 's/^trusted comment: //p' "$2")
  echo "The signature is good: $comment"
  [ -z "$want" ] || [ "$comment" = "petrel $want" ] || die "the release is $comment, and not petrel $want"
}

# part FILE SKIP COUNT: some of its bytes.
part() { dd if="$1" bs=1 skip="$2" count="$3" 2>/dev/null; }

decode() { openssl base64 -d -A; }

# ed25519 MESSAGE SIGNATURE: is it that of the key?
ed25519() { openssl pkeyutl -verify -pubin -keyform DER -inkey "$work/key.der" -rawin -in "$1" -sigfile "$2" >/dev/null 2>&1; }

# verify_openssl does what minisign does. A key is two bytes of algorithm, eight that name it and 32; a signature has 64 bytes behind the
# same ten. What is signed is the file's BLAKE2b digest, and once more that signature with the trusted comment.
verify_openssl() {
  bad="the signature of the release is not that of the key $key: nothing was installed"
  printf '%s' "$key" | decode >"$work/key" 2>/dev/null || die "the key is not one of minisign's: $key"
  [ "$(wc -c <"$work/key")" -eq 42 ] || die "the key is not one of minisign's: $key"
  { printf '\060\052\060\005\006\003\053\145\160\003\041\000' && part "$work/key" 10 32; } >"$work/key.der"
  sed -n 2p "$2" | tr -d '\r\n' | decode >"$work/signature" 2>/dev/null || die "$bad"
  sed -n 4p "$2" | tr -d '\r\n' | decode >"$work/comment.sig" 2>/dev/null || die "$bad"
  [ "$(part "$work/signature" 0 2)" = ED ] || die "the signature is of an old form: install minisign"
  part "$work/key" 2 8 >"$work/id" && part "$work/signature" 2 8 | cmp -s - "$work/id" || die "$bad"
  part "$work/signature" 10 64 >"$work/file.sig"
  openssl dgst -blake2b512 -binary "$1" >"$work/message"
  ed25519 "$work/message" "$work/file.sig" || die "$bad"
  { cat "$work/file.sig" && sed -n 's/^trusted comment: //p' "$2" | tr -d '\r\n'; } >"$work/comment"
  ed25519 "$work/comment" "$work/comment.sig" || die "$bad"
}

# sums gets the digests of the release and checks who made them.
sums() {
  fetch SHA256SUMS "$work/SHA256SUMS" || die "$from has no SHA256SUMS that can be read: is it a release of petrel?$(full)"
  if [ -n "$digest_only" ]; then
    echo "install.sh: the signature is not checked: only damage is found, and no forgery" >&2
    return
  fi
  [ -n "$key" ] || die "no public key is known: give --key, or do without the signature: --digest-only"
  fetch SHA256SUMS.minisig "$work/SHA256SUMS.minisig" || die "the release in $from has no signature; to do without: --digest-only"
  verify "$work/SHA256SUMS" "$work/SHA256SUMS.minisig"
}

# download FILE: the binary for this machine, checked, as $work/petrel.
download() {
  if have zstd && [ -n "$(published "$1.zst")" ]; then
    checked "$1.zst"
    zstd -q -d -c "$work/$1.zst" >"$work/$name" || die "$1.zst cannot be unpacked$(full)"
  else
    checked "$1.tar.gz"
    tar -xzf "$work/$1.tar.gz" -C "$work" "./$name" || die "$1.tar.gz cannot be unpacked$(full)"
  fi
  chmod 755 "$work/$name"
  [ "$(digest "$work/$name")" = "$(published "$1")" ] || die "the binary in the archive has not the digest that the release has for $1: nothing was installed"
}

# checked FILE: fetches it and compares its digest.
checked() {
  sum=$(published "$1")
  [ -n "$sum" ] || die "the release has no $1"
  fetch "$1" "$work/$1" || die "$from/$1 cannot be fetched$(full)"
  [ "$(digest "$work/$1")" = "$sum" ] || die "$1 is damaged or forged: its digest is not the one in SHA256SUMS: nothing was installed"
}

# place installs the binary, in one step: there is the old one or the new one, after a power cut too.
place() {
  # Its bytes have to be on the disk before its name is. Where sync takes no file, it writes everything.
  if have sync; then sync "$work/$name" 2>/dev/null || sync; fi
  mv -f "$work/$name" "$to/$name" || die "$to/$name cannot be written$(full)"
  echo "$to/$name is $("$to/$name" version --client 2>/dev/null | head -n 1)."
  for r in hub agent; do
    if [ -e "/etc/systemd/system/petrel-$r.service" ] || [ -e "/etc/init.d/petrel-$r" ]; then
      echo "petrel-$r goes on with the binary before until it is restarted."
    fi
  done
}

# workplace makes the directory for what is downloaded: beside the binary, so that that is placed by renaming; and there is more space than
# in memory. It goes when the script ends, by a signal too. After a power cut it stays, and a later run removes it.
workplace() {
  trap '[ -z "$work" ] || rm -rf "$work"' EXIT
  trap 'die "interrupted"' HUP INT TERM PIPE
  if have find; then find "$to" -maxdepth 1 -type d -name '.petrel-install.*' -mtime +0 -exec rm -rf {} + 2>/dev/null || true; fi
  work=$(mktemp -d "$to/.petrel-install.XXXXXX") || die "$to cannot be written$(full)"
}

options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --from) value "$@"; from=${2%/}; shift ;;
      --key) value "$@"; key=$2; shift ;;
      --version) value "$@"; want=$2; shift ;;
      --arch) value "$@"; arch=$2; shift ;;
      --to) value "$@"; to=${2%/}; shift ;;
      --digest-only) digest_only=1 ;;
      -h | --help) usage; exit 0 ;;
      hub | agent) role=$1; break ;;
      *) usage >&2; die "what is $1?" ;;
    esac
    shift
  done
  behind=$#
}

main() {
  role='' behind=0
  options "$@"
  shift $(($# - behind)) # what is left is petrel's
  # A copy of the release, on a stick for sites without a network, comes before the one that is published.
  if [ -z "$from" ] && [ -f "$(dirname "$0")/SHA256SUMS" ]; then from=$(dirname "$0"); fi
  from=${from:-$url}
  [ -n "$from" ] || die "where is the release? --from takes a URL or a directory"
  [ -z "$want" ] || [ -z "$digest_only" ] || die "--version needs the signature, which names the version"
  file=$name-$(machine)
  if [ -n "$role" ]; then
    [ "$(id -u)" -eq 0 ] || die "a service is installed by root: sudo sh install.sh ... $role"
    [ "$to" = /usr/local/bin ] || die "a service runs /usr/local/bin/petrel: leave --to out"
  fi
  mkdir -p "$to" 2>/dev/null || true
  [ -d "$to" ] && [ -w "$to" ] || die "$to cannot be written by $(id -un): run this as root, or give --to a directory of your own"
  workplace
  sums
  sum=$(published "$file")
  [ -n "$sum" ] || die "the release has no $file"
  if [ -f "$to/$name" ] && [ "$(digest "$to/$name")" = "$sum" ]; then
    echo "$to/$name is the binary of this release already."
    binary=$to/$name
  else
    download "$file"
    "$work/$name" version --client >/dev/null || die "the binary does not run on this machine: is it ${file#"$name-"}? --arch takes another"
    binary=$work/$name
  fi
  if [ -n "$role" ]; then
    "$binary" install "$@"
  elif [ "$binary" != "$to/$name" ]; then
    place
  fi
}

main "$@"
