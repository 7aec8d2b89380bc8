#!/usr/bin/env bash
# Limits and memory on an emulated board, by way of the API: what the node says of its memory controller, what the kernel
# holds a pod to, and how much a hub and an agent with ten pods take. Usage: limits.sh PATH/TO/petrel
set -euo pipefail

petrel=${1:?usage: limits.sh PATH/TO/petrel}
work=$(mktemp -d /var/tmp/limits.XXXXXX)
cg=/sys/fs/cgroup
hub_pid= agent_pid=

cleanup() {
  local code=$? p
  if [ $code -ne 0 ]; then
    "$petrel" get pods,events -A 2>/dev/null | tail -n 20 || true
    tail -n 10 "$work"/*.log || true
  fi
  for p in $agent_pid $hub_pid; do kill "$p" && wait "$p" || true; done
  rm -rf "$work"
}
trap cleanup EXIT

eventually() { # SECONDS COMMAND...
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "not true in time: $*"; return 1; }
    sleep 1
  done
}
is() { [ "$2" = "$3" ] || { echo "limits: $1 is \"$2\"; want \"$3\""; return 1; }; echo "limits: $1 is $2"; }

# pod NAME LIMITS
pod() {
  printf '{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: "petrel.local/hello:v1", args: [serve], resources: {requests: {cpu: 100m}, limits: {%s}}}]}}\n' "$1" "$2" >"$work/$1.yaml"
  "$petrel" apply -f "$work/$1.yaml"
}
running() { [ "$("$petrel" get pod "$1" -o 'jsonpath={.status.phase}')" = Running ]; }
available() { [ "$("$petrel" get deployment ten -o 'jsonpath={.status.availableReplicas}')" = 10 ]; }
refused() { grep -q 'cgroup_enable=memory' <<<"$("$petrel" get pod "$1" -o 'jsonpath={.status.containerStatuses[0].state.waiting.message}')"; }
knob() { cat "$cg/petrel/pod$("$petrel" get pod "$1" -o 'jsonpath={.metadata.uid}')/$2"; }
memory() { # NAME PID
  awk -v name="$1" '/^VmRSS|^RssAnon/ { v[$1] = $2 } END { printf "memory: %s RSS %.1f MiB, anonymous %.1f MiB\n", name, v["VmRSS:"] / 1024, v["RssAnon:"] / 1024 }' "/proc/$2/status"
}

"$petrel" hub --data-dir "$work/hub" --listen 127.0.0.1:16444 --advertise 127.0.0.1 >"$work/hub.log" 2>&1 &
hub_pid=$!
export KUBECONFIG=$work/hub/admin.kubeconfig
eventually 120 "$petrel" get namespaces
mkdir -p "$work/agent/images"
"$petrel" image build-hello petrel.local/hello:v1 "$work/agent/images/hello.tar"
"$petrel" agent --data-dir "$work/agent" --join "$("$petrel" token create)" --node-name board --no-keep-pods >"$work/agent.log" 2>&1 &
agent_pid=$!
eventually 300 "$petrel" wait --for condition=Ready node/board --timeout 1s
condition=$("$petrel" get node board -o 'jsonpath={.status.conditions[?(@.type=="petrel.dev/MemoryLimits")].status} {.status.conditions[?(@.type=="petrel.dev/MemoryLimits")].message}')

pod cpu 'cpu: 500m'
pod both 'cpu: 500m, memory: 64Mi'
eventually 300 running cpu
is cpu.max "$(knob cpu cpu.max)" "50000 100000"
is cpu.weight "$(knob cpu cpu.weight)" 4
if grep -qw memory $cg/cgroup.controllers; then
  is "the node's MemoryLimits condition" "$condition" " "
  eventually 300 running both
  is memory.max "$(knob both memory.max)" 67108864
  is "memory.max of the container" "$(cat "$cg/petrel/pod$("$petrel" get pod both -o 'jsonpath={.metadata.uid}')"/*/memory.max)" 67108864
else
  echo "limits: the node says: $condition"
  grep -q '^False .*cgroup_enable=memory' <<<"$condition"
  eventually 300 refused both
  echo "limits: the pod with a memory limit waits: $("$petrel" get pod both -o 'jsonpath={.status.containerStatuses[0].state.waiting}')"
  if running both; then echo "limits: and runs"; exit 1; fi
  running cpu
fi
"$petrel" delete pod both cpu --timeout 120s

"$petrel" apply -f - <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: ten}
spec:
  replicas: 10
  selector: {matchLabels: {app: ten}}
  template:
    metadata: {labels: {app: ten}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "petrel.local/hello:v1", args: [serve]}]
YAML
eventually 600 available
sleep 150 # internal/lean gives memory back 2 minutes after the start at the latest
echo "memory: ten pods run"
memory hub "$hub_pid"
memory agent "$agent_pid"
memory containerd "$(pgrep -o -x containerd)"
awk '/^Mem(Total|Available)/ { printf "memory: %s %d MiB\n", $1, $2 / 1024 }' /proc/meminfo
"$petrel" delete deployment ten --timeout 120s
none() { [ -z "$("$petrel" get pods -o name)" ]; }
eventually 300 none
left=$(find $cg/petrel -mindepth 1 -type d)
is "what is left of the pods' cgroups" "$left" ""
