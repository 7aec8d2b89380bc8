#!/usr/bin/env bash
# The tour of `make demo`: a hub and an agent as two processes in a temporary directory, examples/hello.yaml as real
# containers, everything a newcomer would try, and nothing left behind. Usage: demo.sh PATH/TO/petrel
set -euo pipefail

petrel=$(realpath "${1:?usage: demo.sh PATH/TO/petrel}")
here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d /tmp/petrel-demo.XXXXXX)
bridge=ptdemo0
port=${PETREL_DEMO_PORT:-16443}
nodeport=30080
patience=${PETREL_DEMO_PATIENCE:-1} # how many times longer than usual to wait: an emulated board is slow
hub_pid= agent_pid= step=setting\ up
before=$(mktemp) after=$(mktemp)

step() { step=$1; printf '\n\033[1m==> %s\033[0m\n' "$1"; }
say()  { printf '    $ %s\n' "$*"; }
k()    { say "petrel $*"; "$petrel" "$@"; }

# What the machine looks like from outside: processes, mounts, namespaces, interfaces, routes that are ours.
footprint() {
  { pgrep -af "$work" | grep -v "demo.sh" | grep -v pgrep || true
    grep -F "$work" /proc/mounts || true
    ip -o link show | grep -E "$bridge|@if.*master $bridge" || true
    ip route show table local | grep '^local 10\.143\.' || true
    nft list tables 2>/dev/null | grep "petrel.*$bridge" || true
  } 2>/dev/null
}

cleanup() {
  local code=$?
  trap - EXIT INT TERM
  if [ $code -ne 0 ]; then
    printf '\n\033[1mdemo: FAILED at step: %s\033[0m\n' "$step" >&2
    "$petrel" get pods,events -A 2>/dev/null | tail -n 30 >&2 || true
    for l in hub agent; do [ -s "$work/$l.log" ] && { echo "--- last of $l.log" >&2; tail -n 15 "$work/$l.log" >&2; }; done
  fi
  for p in $agent_pid $hub_pid; do kill "$p" 2>/dev/null || true; done
  for p in $agent_pid $hub_pid; do
    for _ in $(seq $((100 * patience))); do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$p" 2>/dev/null || true
  done
  local left; left=$(footprint)
  if [ -n "$left" ]; then
    printf 'demo: left behind:\n%s\n' "$left" >&2
    [ $code -ne 0 ] || { code=1; printf 'demo: FAILED at step: cleaning up\n' >&2; }
  fi
  rm -rf "$work" "$before" "$after"
  [ $code -eq 0 ] && printf '\n\033[1mdemo: all steps passed, nothing left behind (%ss)\033[0m\n' "$SECONDS"
  exit $code
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# eventually SECONDS COMMAND...: until it succeeds.
eventually() {
  local end=$((SECONDS + $1 * patience)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "    not true in time: $*" >&2; "$@" || true; return 1; }
    sleep 0.2
  done
}

# saying TEXT COMMAND...: runs it and insists that its output holds the text.
saying() {
  local want=$1 out; shift
  out=$("$@") || { printf '%s\n' "$out" >&2; return 1; }
  printf '%s\n' "$out" | sed -n '1,3s/^/    /p'
  grep -qF -- "$want" <<<"$out" || { printf '    the answer lacks %q:\n%s\n' "$want" "$out" >&2; return 1; }
}

[ "$(id -u)" -eq 0 ] || { echo "demo: containers need root: use sudo make demo" >&2; exit 1; }

step "start a hub"
say petrel hub --data-dir "$work/hub" --listen 127.0.0.1:$port
"$petrel" hub --data-dir "$work/hub" --listen 127.0.0.1:$port --advertise 127.0.0.1 \
  --cluster-cidr 10.142.0.0/16 --service-cidr 10.143.0.0/16 >"$work/hub.log" 2>&1 &
hub_pid=$!
export KUBECONFIG=$work/hub/admin.kubeconfig
eventually 10 "$petrel" get namespaces
k version

step "create a join token and start an agent"
say petrel token create
token=$("$petrel" token create)
say petrel agent --join "${token:0:24}..." --node-name demo
"$petrel" agent --data-dir "$work/agent" --join "$token" --node-name demo --bridge $bridge --no-keep-pods >"$work/agent.log" 2>&1 &
agent_pid=$!
eventually 20 "$petrel" wait --for condition=Ready node/demo --timeout 1s
k get nodes -o wide

step "make the hello image from the petrel binary and import it"
k image import --data-dir "$work/agent" --hello petrel.local/hello:v1

step "apply examples/hello.yaml and wait until it is available"
k apply -f "$here/examples/hello.yaml"
k rollout status deployment/hello --timeout $((30 * patience))s
k get all

ip=$("$petrel" get service hello -o 'jsonpath={.spec.clusterIP}')
pod() { "$petrel" get pods -l app=hello -o 'jsonpath={.items[0].metadata.name}'; }

step "call the Service by ClusterIP"
eventually 10 "$petrel" fetch "http://$ip/"
saying "GREETING=Ahoy" "$petrel" fetch "http://$ip/"
saying "motto.txt: At home far from shore." "$petrel" fetch "http://$ip/"
saying "PASSWORD=storm" "$petrel" fetch "http://$ip/"

step "call it by NodePort"
eventually 10 "$petrel" fetch "http://127.0.0.1:$nodeport/"
saying "Hello from hello-" "$petrel" fetch "http://127.0.0.1:$nodeport/"

step "call it from inside a pod by its DNS name"
say petrel exec "$(pod)" -- /petrel fetch http://hello.default.svc.cluster.local/
saying "Hello from hello-" "$petrel" exec "$(pod)" -- /petrel fetch http://hello.default.svc.cluster.local/
saying "Hello from hello-" "$petrel" exec "$(pod)" -- /petrel fetch http://hello/

step "read its logs"
saying "listening on" "$petrel" logs "$(pod)"

step "scale to 4"
k scale deployment/hello --replicas 4
k rollout status deployment/hello --timeout $((30 * patience))s
[ "$("$petrel" get pods -l app=hello --no-headers | grep -c Running)" -eq 4 ]
k get pods -o wide

step "kill a container and see it restarted"
victim=$(pod)
uid=$("$petrel" get pod "$victim" -o 'jsonpath={.metadata.uid}')
restarts() { [ "$("$petrel" get pod "$victim" -o 'jsonpath={.status.containerStatuses[0].restartCount}')" -ge 1 ]; }
container_pid() { # of pod UID $1
  local f
  for f in /proc/[0-9]*/cgroup; do
    if grep -qsF "pod$1" "$f" && grep -qsz '^serve$' "${f%cgroup}cmdline"; then
      basename "${f%/cgroup}"
      return
    fi
  done
}
pid=$(container_pid "$uid")
[ -n "$pid" ] || { echo "    no process found for pod $victim" >&2; false; }
say kill -9 "$pid"
kill -9 "$pid"
eventually 20 restarts
eventually 20 "$petrel" wait --for condition=Ready "pod/$victim" --timeout 1s
k get pod "$victim"

step "roll out a changed template"
"$petrel" get pods -l app=hello -o name | sort >"$before"
k patch deployment hello -p '{"spec":{"template":{"metadata":{"annotations":{"demo":"second"}}}}}'
k rollout status deployment/hello --timeout $((40 * patience))s
# One list tells both which pods there are and which of them are on their way out.
"$petrel" get pods -l app=hello --no-headers -o custom-columns=NAME:.metadata.name,DELETED:.metadata.deletionTimestamp |
  awk '$2 == "<none>" { print "pod/" $1 }' | sort >"$after"
[ -s "$after" ]
[ -z "$(comm -12 "$before" "$after")" ] || { echo "    pods of the old template still run:" >&2; comm -12 "$before" "$after" >&2; false; }
k rollout history deployment/hello

step "delete everything"
k delete -f "$here/examples/hello.yaml" --timeout $((30 * patience))s
gone() { [ -z "$("$petrel" get pods -l app=hello -o name)" ]; }
eventually 20 gone

step "stop agent and hub"
