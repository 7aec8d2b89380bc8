#!/usr/bin/env bash
# Installs the Debian packages whose command or file is missing: arguments are command:package or /path/of/a/file:package.
set -euo pipefail
missing=()
for pair in "$@"; do
  [[ $pair == /* && -e ${pair%%:*} ]] || PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "setup: missing ${missing[*]}, and this is no Debian-family machine: install them with your package manager" >&2
  exit 1
fi
sudo=; [ "$(id -u)" -eq 0 ] || sudo=sudo
echo "setup: installing ${missing[*]}"
# A policy that refuses to start services during the installation, on machines that have none yet.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null && $sudo chmod +x "$policy" && made=1
fi
trap '[ -z "$made" ] || $sudo rm -f "$policy"' EXIT
export DEBIAN_FRONTEND=noninteractive
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
