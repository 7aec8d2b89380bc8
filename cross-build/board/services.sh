#!/usr/bin/env bash
# petrel install on an emulated board whose first process is an init system as a machine has it: services come up, installing again
# changes nothing, an upgrade and a kill leave pods running, a reboot brings all back, and uninstall leaves what there was before.
# The init system starts this at each boot, and it goes on where the boot before has ended. Usage: services.sh systemd|openrc
# With the check `deb` it is the Debian package instead of petrel install: package.sh; with `firstboot` and `imager` it is examples/firstboot:
# firstboot.sh.
#
# The last line on the console is "board: PASS" or "board: FAIL".
set -euo pipefail

init=${1:?usage: services.sh systemd|openrc}
state=/var/lib/board
patience=$(tr ' ' '\n' </proc/cmdline | sed -n 's/^board\.patience=//p')
patience=${patience:-1200} # seconds
mkdir -p $state
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec </dev/null >/dev/console 2>&1

# --- the init system

active() {
  case $init in
    systemd) systemctl is-active --quiet "$1" ;;
    openrc) rc-service "$1" status | grep -q started ;;
  esac
}
inactive() { ! active "$1"; } # a function, because `set -e` does not look at what `!` has turned round
booted() { # waits until the machine has started all that it starts
  case $init in
    systemd) systemctl is-system-running --wait ;;
    openrc) eventually 600 grep -qx default /run/openrc/softlevel ;;
  esac
}
restart_machine() {
  case $init in
    systemd) systemctl reboot ;;
    openrc) openrc-shutdown --reboot now ;;
  esac
}
journal() {
  case $init in
    systemd) journalctl --no-pager -b -n "$2" -u "$1" ;;
    openrc) tail -n "$2" "/var/log/$1.log" ;;
  esac
}
binary=/usr/local/bin/petrel # that of the services
main() { pgrep -o -f "^$binary $1\$"; } # hub|agent: its process

# --- helpers

step() { step=$1; echo "board: -- $1 (${SECONDS}s)"; }
say() { echo "services: $*"; }
eventually() { # SECONDS COMMAND...
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { say "not true in time: $*"; return 1; }
    sleep 15 # each look costs an emulated processor some seconds
  done
}
same() { # WHAT WANT GOT
  [ "$2" = "$3" ] || { printf 'services: %s changed: before\n%s\nnow\n%s\n' "$@"; return 1; }
}
verdict() {
  echo "board: $1"
  sync
  sleep 1
  busybox poweroff -f
}
failed() { # CODE
  [ "$1" -ne 0 ] || return 0
  set +e
  echo "board: FAILED at: $step"
  ! command -v petrel >/dev/null || petrel get pods,events -A | tail -n 20
  journal petrel-hub 15
  journal petrel-agent 30
  [ ! -e /var/log/journal ] || journalctl --no-pager -b -1 -n 30 -u petrel-agent
  verdict FAIL
}
trap 'failed $?' EXIT

# image makes an archive, as docker save writes it, with busybox, whose sleep ignores SIGTERM as the first process of a container.
image() {
  local dir=$state/image
  mkdir -p $dir/root/bin
  cp /bin/busybox $dir/root/bin/
  ln -sf busybox $dir/root/bin/sleep
  tar -C $dir/root -cf $dir/layer.tar bin
  printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$(sha256sum <$dir/layer.tar | cut -d' ' -f1)" >$dir/config.json
  printf '[{"Config":"config.json","RepoTags":["petrel.local/busybox:v1"],"Layers":["layer.tar"]}]' >$dir/manifest.json
  tar -C $dir -cf $state/busybox.tar manifest.json config.json layer.tar
  rm -rf $dir
}

# machine prints what the machine is, without what it writes itself: files, processes of ours, mounts, network, cgroups. That the kernel
# forwards packets stays as it is until the next boot: another program may count on it by now.
machine() {
  find / -xdev \( -path /var/lib/board -o -path /var/log/wtmp -o -path /var/lib/systemd -o -path /var/lib/dpkg -o -path /var/log/dpkg.log -o -path /var/log/journal -o -path '*/systemd-private-*' \) -prune -o \
    \( -type f -printf '%p %y %m %U:%G %s %T@\n' -o -printf '%p %y %m %U:%G %l\n' \)
  find /run -xdev \( -path '*petrel*' -o -path '/run/containerd*' \)
  pgrep -a -f '^[^ ]*(petrel|containerd|runc)' | cut -d' ' -f2- || true
  awk '$2 !~ "^/run/credentials" { print $2, $3 }' /proc/mounts
  ip -o link | awk -F'[ :@]+' '{ print "link", $2 }'
  ip route show table all | sed -E 's/^/route /; s/ expires [0-9]+sec//; s/ *$//'
  ip rule | sed 's/ *$//'
  nft list ruleset
  find /sys/fs/cgroup -type d -name '*petrel*'
}
footprint() { machine | LC_ALL=C sort; }

ready() { petrel wait --for condition=Ready node/board --timeout 1s; }
available() { [ "$(petrel get deployment hello -o 'jsonpath={.status.availableReplicas} {.status.unavailableReplicas}')" = "${1:-1} " ]; }
stubborn() { petrel wait --for condition=Ready pod/stubborn --timeout 1s; }
# The processes of containers, and of what holds them.
containers() { pgrep -a -f '^/petrel serve|^/bin/sleep 100000|^[^ ]*/containerd' | sort || true; }
lives() { petrel get pods --sort-by=.metadata.name -o 'jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}' | sort; }
ended() { petrel get pods -l "$1" -o 'jsonpath={.items[*].status.containerStatuses[0].lastState.terminated.exitCode}'; } # LABEL: exit code
restarts() { petrel get pods -o 'jsonpath={range .items[*]}{.status.containerStatuses[0].restartCount}{"\n"}{end}'; }

apply() { # a pod that ends on SIGTERM, and one that ignores it
  petrel image import --hello petrel.local/hello:v1 $state/busybox.tar
  petrel apply -f - <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec: {containers: [{name: main, image: "petrel.local/hello:v1", args: [serve]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stubborn, labels: {app: stubborn}}
spec: {containers: [{name: main, image: "petrel.local/busybox:v1", command: [/bin/sleep, "100000"]}]}
YAML
}
up() {
  eventually "$patience" active petrel-hub
  eventually "$patience" active petrel-agent
  eventually "$patience" ready
}
pods() {
  eventually "$patience" available 1
  eventually "$patience" stubborn
}

remember() { # what unchanged and upgrade compare with
  lives=$(lives) containers=$(containers) hub=$(main hub) agent=$(main agent)
  say "pods: $lives"
}
unchanged() {
  pods
  same "pods" "$lives" "$(lives)"
  same "processes of containers, shims and containerd" "$containers" "$(containers)"
}
upgrade() { # COMMAND...: it installs the second version
  step "upgrade"
  "$@"
  up
  petrel version
  [[ $(petrel version) == *board-2*board-2* ]]
  [ "$(main hub)" != "$hub" ]
  [ "$(main agent)" != "$agent" ]
  unchanged
}

# --- the boots

before() {
  step "before"
  if [ "$init" = systemd ]; then # what was logged before the reboot is to be seen when something fails after it
    mkdir -p /var/log/journal
    journalctl --flush
  fi
  say "$(uname -srm), $(cat /proc/1/comm)"
  image
  mkdir -p /usr/local/bin # as on every Debian that an installer has made
  footprint >$state/before
}

first() {
  before

  step "install hub"
  /board/petrel install hub --advertise 127.0.0.1
  eventually 900 active petrel-hub
  eventually 900 petrel get namespaces

  step "install agent"
  petrel token create | petrel install agent --join -
  up

  step "pods"
  apply
  pods
  remember
  local out

  step "install again"
  out=$(/board/petrel install hub --advertise 127.0.0.1; /board/petrel install agent)
  say "$out"
  same "what was written" "" "$(grep -vE 'runs, and starts with this machine' <<<"$out" || true)"
  same "processes of the services" "$hub $agent" "$(main hub) $(main agent)"

  upgrade /board/petrel-next install hub

  step "kill"
  agent=$(main agent)
  kill -9 "$agent"
  sleep 5
  up
  [ "$(main agent)" != "$agent" ]
  unchanged
  petrel scale deployment hello --replicas 2
  eventually "$patience" available 2
  petrel scale deployment hello --replicas 1
  eventually "$patience" available 1

  reboot second
}

reboot() { # FUNCTION: what goes on after it
  step "reboot"
  echo "$1" >$state/next
  sync
  trap - EXIT
  restart_machine
}

second() {
  step "after the reboot"
  up
  pods
  say "restarts: $(restarts | xargs)"
  same "pods that were not started again" "" "$(restarts | grep -x 0)"
  same "exit code of the server that ends on SIGTERM" 0 "$(ended app=hello)"
  same "exit code of the pod that ignores it" 137 "$(ended app=stubborn)"

  step "uninstall"
  petrel uninstall
  inactive petrel-hub
  inactive petrel-agent
  same "processes" "" "$(containers)"
  [ -e /var/lib/petrel/admin.kubeconfig ]

  step "install with the data of before"
  /board/petrel install hub
  /board/petrel install agent
  up
  pods

  step "uninstall --purge"
  petrel uninstall --purge
  after
}

after() { # compares the machine with what it was before
  footprint >$state/after
  same "what the machine is" "" "$(comm -3 $state/before $state/after)"
  say "nothing is left"
  verdict PASS
}

# shellcheck disable=SC1091
case $(tr ' ' '\n' </proc/cmdline | sed -n 's/^board\.checks=//p') in
  deb) . /board/package.sh ;;
  firstboot | imager) . /board/firstboot.sh ;;
esac
booted || true
next=$(cat $state/next 2>/dev/null || echo first)
$next
