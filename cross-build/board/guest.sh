#!/usr/bin/env bash
# What runs on an emulated board, as its first process, or before OpenRC as that. The last line on the console is "board: PASS" or "board: FAIL".
# `guest.sh packages` prints the packages whose tests are run.
set -u

packages="edgeagent/ctrd edgeagent edgeagent/node edgeagent/podnet edgeagent/volume sqlstore/sqlite internal/wire svcproxy"
[ "${1:-}" != packages ] || { echo $packages; exit 0; }

# machine does what an init system does before anything else starts.
machine() {
  export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C
  mount -t tmpfs -o mode=755 run /run
  mount -t tmpfs tmp /tmp
  mkdir -p /dev/pts /dev/shm /dev/mqueue
  mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
  mount -t tmpfs shm /dev/shm
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  echo board >/proc/sys/kernel/hostname
  modprobe virtio_net 2>/dev/null
  ip link set lo up
  local nic
  nic=$(ip -o link | awk -F': ' '$2 != "lo" { print $2; exit }')
  ip address add 10.0.2.15/24 dev "$nic" && ip link set "$nic" up && ip route add default via 10.0.2.2
}

demo() { PETREL_DEMO_PATIENCE=10 TMPDIR=/var/tmp bash /board/src/test/demo/demo.sh /board/petrel; }

limits() { bash /board/limits.sh /board/petrel; }

# tests runs the tests of each package in its directory, as `go test` does.
tests() {
  local p bad=
  for p in $packages; do
    printf -- '--- tests of %s\n' "$p"
    (cd "/board/src/$p" && TMPDIR=/var/tmp CI=true ./test -test.parallel 1 -test.timeout 20m) || bad="$bad $p"
  done
  [ -z "$bad" ] || { echo "tests fail:$bad"; return 1; }
}

# openrc becomes OpenRC. Debian has neither its runlevels nor the services that Petrel's depend on as OpenRC's own distributions do;
# network and mounts are there already.
openrc() {
  if [ ! -e /etc/init.d/board ]; then # the second boot finds them
    printf '#!/sbin/openrc-run\ndepend() { :; }\nstart() { :; }\n' >/etc/init.d/localmount
    printf '#!/sbin/openrc-run\ncommand=/bin/bash\ncommand_args="/board/services.sh openrc"\ncommand_background=yes\npidfile=/run/board.pid\n' >/etc/init.d/board
    chmod 755 /etc/init.d/localmount /etc/init.d/board
  fi
  ln -sf /etc/init.d/localmount /etc/runlevels/boot/
  ln -sf /etc/init.d/board /etc/runlevels/default/
  exec /sbin/openrc-init
}

# argument NAME: its value on the kernel's command line.
argument() { tr ' ' '\n' </proc/cmdline | sed -n "s/^board\.$1=//p"; }

# node is a node of test/boards until the power goes. Each ten seconds it says what runs, how much memory agent and containerd take, and how
# many seconds of its processors they and all others have had.
node() {
  local join agent daemon
  join=$(argument join)
  /board/petrel agent --data-dir /var/lib/petrel --node-name board --plain-http-registry "$(argument registry)" ${join:+--join "$join"} &
  agent=$!
  while sleep 10; do
    daemon=$(pgrep -o -x containerd)
    echo "board: $(pgrep -c -x pod) pods run, the agent takes $(taken "$agent"), containerd $(taken "$daemon");" \
      "up for $(cut -d' ' -f1 /proc/uptime) s, processor: agent $(spent "$agent"), containerd $(spent "$daemon"), all $(awk '/^cpu / { print ($2 + $3 + $4) / 100; exit }' /proc/stat) s"
  done
}

# taken PID: RSS and the anonymous part of it, in KiB.
taken() {
  awk '/^VmRSS|^RssAnon/ { v[$1] = $2 } END { printf "%d (%d) KiB", v["VmRSS:"], v["RssAnon:"] }' "/proc/${1:-0}/status" 2>/dev/null
}

# spent PID: seconds of processor time.
spent() { awk '{ print ($14 + $15) / 100 }' "/proc/${1:-0}/stat" 2>/dev/null; }

machine
[ "$(argument checks)" != openrc ] || openrc
mkdir /sys/fs/cgroup/board && echo $$ >/sys/fs/cgroup/board/cgroup.procs
echo "board: $(uname -srm), $(awk '/MemTotal/ { print int($2 / 1024) " MiB" }' /proc/meminfo), $(containerd --version | cut -d' ' -f3), $(runc --version | head -n1)"
echo "board: cgroup controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
mkdir -p /var/tmp
failed=
for check in $(argument checks | tr , ' '); do
  echo "board: == $check"
  ("$check") || failed="$failed $check"
  echo "board: == $check done after ${SECONDS}s"
done
[ -z "$failed" ] && verdict=PASS || verdict=FAIL
echo "board: failed:${failed:- nothing}"
sync
printf 'board: %s\n' "$verdict"
sleep 1
busybox poweroff -f
