# examples/firstboot on a board whose first process is systemd and which is its own hub: services.sh reads this in place of its own two boots. The
# boot partition is FAT, and the initramfs takes its cmdline.txt as firmware does (init). With the check `firstboot` cloud-init reads user-data from
# it: the board becomes a node though the program cannot be had at its first boot, and the boot after that changes nothing. With `imager` the
# kernel's command line runs firstrun.sh from it.
# shellcheck shell=bash disable=SC2086,SC2154 # state and patience are from services.sh

node=pi-10000000a1b2c3d4 # the serial number that board.sh gives the machine
boot=/boot/firmware
examples=/board/src/examples/firstboot
files=http://127.0.0.1:8080/petrel
check=$(tr ' ' '\n' </proc/cmdline | sed -n 's/^board\.checks=//p')

ready() { petrel wait --for condition=Ready "node/$node" --timeout 1s; }
token() { busybox rev $state/nekot; } # kept in another form than that which is searched for

# holders prints the files of the machine that have the token in them, and firmware.img when it is somewhere on the boot partition.
holders() {
  printf '%s\n' "$(token)" | grep -rlsF -f - $boot /etc /home /opt /root /srv /usr/local /var || true
}
hidden() { sync; [ -z "$(holders)" ]; }

first() {
  step "before"
  mkdir -p /var/log/journal /usr/local/bin
  journalctl --flush
  say "$(uname -srm), $(cat /proc/1/comm), serial number $(cat /sys/class/dmi/id/product_serial)"

  step "install hub"
  /board/petrel install hub --advertise 127.0.0.1
  eventually 900 active petrel-hub
  eventually 900 petrel get namespaces
  petrel token create --uses unlimited --name-pattern 'pi-{serial}' | busybox rev >$state/nekot

  step "write the card"
  truncate -s 400M $state/firmware.img
  busybox mkdosfs -n bootfs $state/firmware.img
  mkdir -p $boot
  echo "$state/firmware.img $boot vfat loop 0 0" >>/etc/fstab
  modprobe -a loop vfat
  systemctl daemon-reload
  mount $boot
  "card_$check"
  ls -lR $boot
  reboot "started_$check"
}

# --- cloud-init

card_firstboot() {
  echo rootwait >$boot/cmdline.txt
  echo 'instance-id: board-1' >$boot/meta-data
  sed -e "s|petrel1\.PUT-YOUR-TOKEN-HERE|$(token)|" -e "s|https://files\.example\.org/.*|$files $(sha256sum </board/petrel | cut -d' ' -f1)|" \
    $examples/user-data >$boot/user-data
  sync
  same "files with the token" "$boot/user-data $state/firmware.img" "$(holders | xargs)"

  # Where the seed is, is as on Raspberry Pi OS. Modules that need the rest of a distribution are left out.
  mkdir -p /etc/systemd/system/cloud-init-local.service.d
  printf '[Unit]\nRequiresMountsFor=%s\n' $boot >/etc/systemd/system/cloud-init-local.service.d/seed.conf
  cat >/etc/cloud/cloud.cfg.d/99_board.cfg <<END
datasource_list: [NoCloud]
datasource: {NoCloud: {seedfrom: "file://$boot/"}}
network: {config: disabled}
cloud_init_modules: [bootcmd, write-files]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user, final-message]
END
  mkdir -p /etc/systemd/system/cloud-init.target.wants # as the package's own script does, which was not run
  for unit in cloud-init-local cloud-init cloud-config cloud-final; do
    ln -s /lib/systemd/system/$unit.service /etc/systemd/system/cloud-init.target.wants/
  done
}

clouded() { # waits until cloud-init is done with this boot
  eventually 600 grep -q . /run/cloud-init/result.json
  same "status of cloud-init" "status: done" "$(cloud-init status | xargs)"
  same "errors of cloud-init" "" "$(grep -E 'WARNING|ERROR|Traceback' /var/log/cloud-init.log || true)"
}

started_firstboot() {
  step "first boot, the program cannot be had"
  clouded
  eventually "$patience" grep -q 'cannot be downloaded' /var/log/petrel-firstboot.log
  [ ! -e /var/lib/petrel/agent/identity ]

  # It can from now on.
  mkdir -p /srv
  cp /board/petrel /srv/petrel
  cat >/etc/systemd/system/files.service <<END
[Service]
ExecStart=/bin/busybox httpd -f -p 127.0.0.1:8080 -h /srv
[Install]
WantedBy=multi-user.target
END
  systemctl enable files
  reboot joins
}

# noted prints what the first boot has made and a later one leaves.
noted() {
  find /etc /usr/local $boot -type f -printf '%p %m %s %T@\n' | sort
  cat /var/log/petrel-firstboot.log
  sha256sum /var/lib/petrel/agent/identity /usr/local/bin/petrel
  petrel get node "$node" -o 'jsonpath={.metadata.uid}'
}

joins() {
  step "the board becomes a node"
  up
  cat /var/log/petrel-firstboot.log
  petrel get nodes --show-labels
  same "the node with the label of user-data" "$node" "$(petrel get nodes -l site=shed -o 'jsonpath={.items[*].metadata.name}')"
  eventually 300 hidden || { holders; return 1; }
  clouded
  same "petrel-firstboot" inactive "$(systemctl is-active petrel-firstboot || true)"
  noted >$state/noted
  reboot stays
}

stays() {
  step "another boot"
  clouded
  up
  same "what the first boot has made" "$(cat $state/noted)" "$(noted)"
  same "files with the token" "" "$(holders)"
  verdict PASS
}

# --- Raspberry Pi Imager

card_imager() {
  image
  mkdir -p $boot/petrel/images
  cp $examples/firstrun.sh $boot/
  cp $examples/petrel-firstboot.sh /board/petrel $boot/petrel/
  cp $state/busybox.tar $boot/petrel/images/
  token >$boot/petrel/token
  echo 'rootwait systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target' >$boot/cmdline.txt
}

started_imager() {
  step "after firstrun.sh"
  journalctl --no-pager -b -1 -u kernel-command-line | grep 'Finished kernel-command-line'
  same "cmdline.txt" rootwait "$(cat $boot/cmdline.txt)"
  up
  cat /var/log/petrel-firstboot.log
  petrel get nodes --show-labels
  eventually 300 hidden || { holders; return 1; }
  same "petrel-firstboot" inactive "$(systemctl is-active petrel-firstboot || true)"

  step "a pod with an image of the card"
  petrel apply -f - <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: stubborn}
spec: {containers: [{name: main, image: "petrel.local/busybox:v1", command: [/bin/sleep, "100000"]}]}
YAML
  eventually "$patience" stubborn
  verdict PASS
}
