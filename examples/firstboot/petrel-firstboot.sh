#!/bin/sh
# Makes this machine a node of a Petrel fleet at its first boot, without anybody at it. Run it as root; it can be run again.
#
# It looks for a directory petrel on the boot partition (/boot/firmware, /boot), or /var/lib/petrel-firstboot, with
#
#   token         what `petrel token create --uses unlimited --name-pattern 'pi-{serial}'` printed on the hub
#   petrel        the program, or petrel-ARCH (aarch64, armv7l, armv6l, x86_64, riscv64) to serve several kinds of boards;
#   url           or where to get it: one line, "URL SHA256"
#   agent.yaml    settings of the agent, optional: flags of petrel agent without the dashes
#   images/       archives of images that are to be on the node without a registry, optional
#
# The token is taken off the boot partition, where everybody who has the card can read it, also out of the user-data of cloud-init. What
# happens is in the journal, and in /var/log/petrel-firstboot.log.
#
# PETREL_ROOT is the root of the machine: / unless an image is prepared, or this is tried out.
set -eu

root=${PETREL_ROOT:-/}
root=${root%/}
tries=${PETREL_TRIES:-40} # of installing, 15 s apart: the clock of a board is wrong until a time server was reached

log() {
	echo "petrel-firstboot: $*" >&2
	echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $*" >>"$root/var/log/petrel-firstboot.log"
}

fail() {
	log "$*"
	exit 1
}

find_source() {
	for dir in "$root/boot/firmware/petrel" "$root/boot/petrel" "$root/var/lib/petrel-firstboot"; do
		if [ -e "$dir/token" ] || [ -e "$dir/agent.yaml" ]; then
			return 0
		fi
	done
	return 1
}

# fetch gets the program from a URL. A download without a digest is not run.
fetch() {
	read -r url digest <"$dir/url" || [ -n "$url" ] || fail "$dir/url is empty"
	[ -n "$digest" ] || fail "$dir/url has no SHA-256 digest behind the URL"
	if command -v curl >/dev/null; then
		curl -fsSL --retry 5 --retry-delay 5 -o "$program" "$url" || fail "$url cannot be downloaded"
	else
		wget -q -O "$program" "$url" || fail "$url cannot be downloaded"
	fi
	echo "$digest  $program" | sha256sum -c - >/dev/null 2>&1 || fail "$url is not what $dir/url says: its SHA-256 digest is another"
}

# place puts the program where it can be run: the boot partition may not allow that.
place() {
	program=$root/var/tmp/petrel-firstboot.$$
	trap 'rm -f "$program"' EXIT
	trap 'exit 1' INT TERM
	if [ -e "$dir/petrel-$(uname -m)" ]; then
		cp "$dir/petrel-$(uname -m)" "$program"
	elif [ -e "$dir/petrel" ]; then
		cp "$dir/petrel" "$program"
	elif [ -e "$dir/url" ]; then
		fetch
	else
		fail "there is neither petrel, petrel-$(uname -m) nor url in $dir"
	fi
	chmod 755 "$program"
}

# take_images copies archives to where the agent imports them from. Copies that a power cut has cut short are made again.
take_images() {
	[ -d "$dir/images" ] || return 0
	mkdir -p "$root/var/lib/petrel/images"
	for file in "$dir"/images/*; do
		[ -f "$file" ] || continue
		to=$root/var/lib/petrel/images/$(basename "$file")
		cp "$file" "$to.part"
		sync "$to.part" 2>/dev/null || sync
		mv "$to.part" "$to"
		log "$to is there"
	done
}

install_agent() {
	if [ -e "$dir/agent.yaml" ] && [ ! -e "$root/etc/petrel/agent.yaml" ]; then
		mkdir -p "$root/etc/petrel"
		(umask 077 && cp "$dir/agent.yaml" "$root/etc/petrel/agent.yaml")
	fi
	set -- install agent --fix
	if [ -n "$root" ]; then
		set -- "$@" --root "$root"
	fi
	if [ -e "$dir/token" ] && ! grep -q '^xxx' "$dir/token"; then # a power cut may have left it overwritten
		"$program" "$@" --join - <"$dir/token" 2>&1
	else
		"$program" "$@" 2>&1
	fi
}

# forget overwrites the token where cloud-init had it from and where it keeps copies, and then removes it: in place, so that it is not among the free
# blocks of the card either, and with as many characters, because one of the copies is binary. Its own file is the last: as long as there is
# one, the unit runs this again.
forget() {
	[ -s "$dir/token" ] || return 0
	token=$(tr -d '[:space:]' <"$dir/token")
	blank=$(printf %s "$token" | tr -c '\n' x)
	printf '%s\n' "$token" |
		grep -rlsF -f - "$root/boot/firmware/user-data" "$root/boot/user-data" "$root/var/lib/cloud" "$dir/token" | while read -r file; do
		printf 's|%s|%s|g\n' "$token" "$blank" | LC_ALL=C sed -f /dev/stdin "$file" | dd of="$file" conv=notrunc,fsync 2>/dev/null ||
			fail "the token cannot be taken off $file"
		log "the token is off $file"
	done
	rm -f "$dir/token"
	sync
}

mkdir -p "$root/var/log" "$root/var/tmp"
find_source || fail "no directory petrel with a token in it was found on the boot partition"
boot_line=$(cat "$root/boot/firmware/cmdline.txt" "$root/boot/cmdline.txt" 2>/dev/null || true)
place
take_images
try=1
until out=$(install_agent); do
	log "try $try: $out"
	[ "$try" -lt "$tries" ] || fail "given up; run petrel-firstboot again when this is in order"
	try=$((try + 1))
	sleep 15
done
log "$out"
forget
rm -f "$root/etc/systemd/system/multi-user.target.wants/petrel-firstboot.service" # which runs this at each boot until here
sync
log "done"
if [ "$boot_line" != "$(cat "$root/boot/firmware/cmdline.txt" "$root/boot/cmdline.txt" 2>/dev/null || true)" ]; then
	log "the memory controller was off: the machine starts again with it on"
	[ -n "$root" ] || systemctl reboot || reboot
fi
