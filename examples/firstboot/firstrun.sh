#!/bin/sh
# For Raspberry Pi OS: runs once, before the system is up, as Raspberry Pi Imager has its own firstrun.sh run. It only arranges that
# petrel-firstboot runs at the next boots, with a network, until it has succeeded.
#
# On the boot partition of a fresh card: copy this file, and the directory petrel with petrel-firstboot.sh, petrel and token in it; then
# add to the end of the one line in cmdline.txt
#
#   systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target
#
# Where Imager has made a firstrun.sh already: call this one from it, before its last lines, under another name.
set -eu

root=${PETREL_ROOT:-/}
root=${root%/}

for boot in "$root/boot/firmware" "$root/boot"; do
	[ ! -e "$boot/petrel/petrel-firstboot.sh" ] || break
done
if [ ! -e "$boot/petrel/petrel-firstboot.sh" ]; then
	echo "firstrun: no petrel/petrel-firstboot.sh on the boot partition" >&2
	exit 1
fi

mkdir -p "$root/usr/local/sbin" "$root/etc/systemd/system/multi-user.target.wants"
cp "$boot/petrel/petrel-firstboot.sh" "$root/usr/local/sbin/petrel-firstboot"
chmod 755 "$root/usr/local/sbin/petrel-firstboot"
cat >"$root/etc/systemd/system/petrel-firstboot.service" <<'UNIT'
[Unit]
Description=Make this machine a node of a Petrel fleet
Wants=network-online.target
After=network-online.target time-sync.target
ConditionPathExists=|!/var/lib/petrel/agent/identity
ConditionPathExists=|/boot/firmware/petrel/token
ConditionPathExists=|/boot/petrel/token
ConditionPathExists=|/var/lib/petrel-firstboot/token
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/petrel-firstboot
Restart=on-failure
RestartSec=60

[Install]
WantedBy=multi-user.target
UNIT
ln -sf /etc/systemd/system/petrel-firstboot.service "$root/etc/systemd/system/multi-user.target.wants/petrel-firstboot.service"

# This script has had its turn.
for line in "$root/boot/firmware/cmdline.txt" "$root/boot/cmdline.txt"; do
	if [ -e "$line" ]; then
		sed -e 's| systemd\.run=[^ ]*||; s| systemd\.run_success_action=[^ ]*||; s| systemd\.unit=kernel-command-line\.target||' "$line" >"$line.next"
		sync
		mv "$line.next" "$line"
	fi
done
sync
