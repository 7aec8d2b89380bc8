package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// database is a StatefulSet whose pods write a line into their volume with each life. They run as a user, with a group.
const database = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: %d
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
      containers:
      - name: db
        image: petrel.local/box:v1
        command: [sh, -c, "cat /proc/sys/kernel/random/uuid >> /data/lives && exec sleep 100000"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
`

// stored is where the hub and the nodes of a test keep what.
type stored struct {
	t      *testing.T
	h      *harness.Hub
	agents map[string]*harness.Agent // by node
}

// lives returns the lines that the lives of a pod have written.
func (s *stored) lives(pod string) []string {
	s.t.Helper()
	return strings.Fields(s.h.Kubectl("exec", pod, "--", "cat", "/data/lives"))
}

// place returns the directory of a claim's volume, and its node.
func (s *stored) place(claim string) (dir string, on *harness.Agent) {
	s.t.Helper()
	volume := s.h.Kubectl("get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}")
	node := s.h.Kubectl("get", "pv", volume, "-o", `jsonpath={.spec.csi.volumeAttributes.petrel\.dev/node}`)
	on = s.agents[node]
	if on == nil {
		s.t.Fatalf("claim %s has volume %q on node %q", claim, volume, node)
	}
	return filepath.Join(on.Dir, "agent", "volumes", volume), on
}

func (s *stored) gone(dir string) {
	s.t.Helper()
	harness.Eventually(s.t, 40*time.Second, "the directory is gone", func() error {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			return fmt.Errorf("%s: %v", dir, err)
		}
		return nil
	})
}

func startStored(t *testing.T, name string, nodes ...string) ([]harness.Machine, *stored) {
	ms, h := startBox(t, name, 1+len(nodes))
	s := &stored{t: t, h: h, agents: map[string]*harness.Agent{}}
	for i, n := range nodes {
		s.agents[n] = s.h.Join(ms[i+1], n)
	}
	return ms, s
}

// A StatefulSet's data outlives its pods, a scaling down and up, and a power cut without the hub. What it was asked to delete is
// deleted on the node's disk, also when the node is dark at that time.
func TestDataOfAStatefulSet(t *testing.T) {
	t.Parallel()
	harness.Long(t)
	ms, s := startStored(t, "data", "one", "two")
	h := s.h
	h.Apply(fmt.Sprintf(database, 2))
	h.Kubectl("rollout", "status", "statefulset/db", "--timeout=2m")
	if out := h.Kubectl("get", "pvc", "-o", "jsonpath={.items[*].status.phase}"); out != "Bound Bound" {
		t.Errorf("claims are %s", out)
	}
	first := s.lives("db-0")
	if len(first) != 1 {
		t.Fatalf("a first life wrote %q", first)
	}
	dir0, on0 := s.place("data-db-0")
	dir1, _ := s.place("data-db-1")
	if fi, err := os.Stat(filepath.Join(dir0, "lives")); err != nil || fi.Sys().(*syscall.Stat_t).Gid != 2000 {
		t.Errorf("the file is not the group's: %+v, %v", fi, err)
	}

	h.Kubectl("delete", "pod", "db-0")
	h.Kubectl("rollout", "status", "statefulset/db", "--timeout=2m")
	second := s.lives("db-0")
	if len(second) != 2 || second[0] != first[0] {
		t.Errorf("after the pod was replaced: %q, before %q", second, first)
	}

	other := s.lives("db-1")
	h.Kubectl("scale", "statefulset/db", "--replicas=1")
	h.Kubectl("wait", "--for=delete", "pod/db-1", "--timeout=2m")
	h.Kubectl("scale", "statefulset/db", "--replicas=2")
	h.Kubectl("rollout", "status", "statefulset/db", "--timeout=2m")
	if now := s.lives("db-1"); len(now) != 2 || now[0] != other[0] {
		t.Errorf("after scaling down and up: %q, before %q", now, other)
	}

	// From now on what is scaled away is deleted, on the disk too.
	h.Kubectl("patch", "statefulset", "db", "--type=merge", "-p", `{"spec":{"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Delete","whenDeleted":"Retain"}}}`)
	h.Kubectl("scale", "statefulset/db", "--replicas=1")
	s.gone(dir1)
	h.Kubectl("wait", "--for=delete", "pvc/data-db-1", "--timeout=2m")

	// A power cut without the hub: the pod comes back on its node with its data.
	machine := ms[1]
	if on0.Name == "two" {
		machine = ms[2]
	}
	machine.Unplug(t)
	on0.PowerCut()
	on0.Start()
	harness.Eventually(t, 90*time.Second, "the pod lives again without the hub", func() error {
		b, err := os.ReadFile(filepath.Join(dir0, "lives"))
		if n := len(strings.Fields(string(b))); err == nil && n != 3 {
			err = fmt.Errorf("%d lives", n)
		}
		return err
	})

	// The claim is deleted while that node is dark. Its volume's object stays until the node has removed the directory.
	h.Kubectl("delete", "statefulset", "db", "--cascade=foreground", "--wait=false")
	h.Kubectl("delete", "pod", "db-0", "--force", "--grace-period=0")
	volume := filepath.Base(dir0)
	h.Kubectl("delete", "pvc", "data-db-0", "--timeout=2m")
	time.Sleep(3 * time.Second)
	if out := h.Kubectl("get", "pv", volume, "-o", "jsonpath={.status.phase} {.metadata.deletionTimestamp} {.metadata.finalizers}"); !strings.HasPrefix(out, "Released 2") ||
		!strings.HasSuffix(out, `["petrel.dev/local-path"]`) {
		t.Errorf("the volume of a dark node is %s", out)
	}
	if _, err := os.Stat(dir0); err != nil {
		t.Errorf("the directory: %v", err)
	}
	machine.Plug(t)
	s.gone(dir0)
	h.Eventually(40*time.Second, "the object is gone", func() error {
		if out, err := h.TryKubectl("get", "pv", "-o", "name"); err != nil || out != "" {
			return fmt.Errorf("%s %v", out, err)
		}
		return nil
	})
}

// TestVolumeKinds mounts what else a pod can name by claims: an ephemeral volume, a disk that an administrator has brought, parts
// of it, read-only; and shows what cannot be had.
func TestVolumeKinds(t *testing.T) {
	t.Parallel()
	_, s := startStored(t, "kinds", "one")
	h := s.h
	disk := t.TempDir()
	for name, text := range map[string]string{"top": "at the top", "sub/below": "below"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(disk, name)), 0o755); err == nil {
			err = os.WriteFile(filepath.Join(disk, name), []byte(text), 0o644)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	h.Apply(fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: ""
  persistentVolumeReclaimPolicy: Retain
  local: {path: %s}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [one]}]}]}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: petrel.local/box:v1
    command: [sh, -c, "touch /scratch/made; touch /disk/made 2>/scratch/refused; exec sleep 100000"]
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: disk, mountPath: /disk}
    - {name: disk, mountPath: /part, subPath: sub}
  volumes:
  - {name: disk, persistentVolumeClaim: {claimName: disk, readOnly: true}}
  - name: scratch
    ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}}}
`, disk))
	h.Running("reader")
	if out := h.Kubectl("exec", "reader", "--", "sh", "-c", "cat /disk/top /part/below; ls /scratch; cat /scratch/refused"); out != "at the topbelowmade\nrefused\ntouch: /disk/made: Read-only file system\n" {
		t.Errorf("the pod sees %q", out)
	}
	dir, _ := s.place("reader-scratch")
	h.Kubectl("delete", "pod", "reader")
	s.gone(dir)
	h.Kubectl("wait", "--for=delete", "pvc/reader-scratch", "--timeout=2m")
	if _, err := os.Stat(filepath.Join(disk, "top")); err != nil {
		t.Errorf("the administrator's disk: %v", err)
	}
	h.Apply(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: shared}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: sharer}
spec:
  containers: [{name: c, image: "petrel.local/box:v1", volumeMounts: [{name: v, mountPath: /v}]}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: shared}}]
`)
	h.Eventually(20*time.Second, "the pod says why it waits", func() error {
		out, err := h.TryKubectl("get", "pod", "sharer", "-o", `jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}`)
		if want := "access modes are ReadWriteOnce or ReadWriteOncePod"; err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("%q", out)
		}
		return err
	})
}
