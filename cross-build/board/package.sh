# Petrel as a Debian package, on a board whose first process is systemd: services.sh reads this in place of its own two boots. The installation
# starts nothing, an upgrade leaves pods running, a reboot brings all back, removal keeps the data, and a purge leaves what there was before.
# shellcheck shell=bash disable=SC2034 # binary is for services.sh

binary=/usr/bin/petrel

first() {
  before

  step "install the package"
  dpkg -i /board/petrel-1.deb
  inactive petrel-hub
  inactive petrel-agent

  step "install hub and agent"
  petrel install hub --advertise 127.0.0.1
  eventually 900 active petrel-hub
  eventually 900 petrel get namespaces
  petrel token create | petrel install agent --join -
  up
  [ ! -e /etc/systemd/system/petrel-hub.service ] # the package's own unit is used

  step "pods"
  apply
  pods
  remember
  upgrade dpkg -i /board/petrel-2.deb
  reboot second
}

second() {
  step "after the reboot"
  up
  pods

  step "remove"
  dpkg -r petrel
  [ ! -e $binary ]
  inactive petrel-hub
  inactive petrel-agent
  same "processes" "" "$(containers)"
  [ -e /var/lib/petrel/admin.kubeconfig ]
  [ -e /etc/petrel/agent.yaml ]

  step "install the package with the data of before"
  dpkg -i /board/petrel-2.deb
  systemctl is-enabled petrel-hub petrel-agent
  systemctl start petrel-hub petrel-agent
  up
  pods

  step "purge"
  dpkg -P petrel
  after
}
