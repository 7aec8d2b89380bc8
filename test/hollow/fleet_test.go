package hollow

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cache"
	"petrel.dev/petrel/edgeagent/link"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/wire"
)

// node is a device with a link and a memory, and nothing behind them.
type node struct {
	name  string
	index int
	cache *cache.Cache
	link  *link.Link
	moved atomic.Int64 // how often its desired set has changed

	addresses int // given to pods so far; of the goroutine that pretends
}

// fleet is all nodes of a test.
type fleet struct {
	t     *testing.T
	hub   *hub
	nodes []*node
}

// startFleet has n devices join the hub.
func startFleet(t *testing.T, h *hub, n int) *fleet {
	t.Helper()
	token := h.token()
	f := &fleet{t: t, hub: h}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	dir, quiet := t.TempDir(), slog.New(slog.NewTextHandler(io.Discard, nil))
	for i := range n {
		d := &node{name: fmt.Sprintf("node-%04d", i), index: i}
		home := filepath.Join(dir, d.name)
		var err error
		d.cache, err = cache.Open(link.CacheDir(home), nil, quiet)
		must(t, err)
		d.link, err = link.New(link.Config{
			Dir: home, JoinToken: token, NodeName: d.name, Cache: d.cache, Build: "hollow", Log: quiet,
			Labels: map[string]string{"kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux"},
		})
		must(t, err)
		f.nodes = append(f.nodes, d)
	}
	for _, d := range f.nodes {
		wg.Go(func() {
			defer d.cache.Close()
			var both sync.WaitGroup
			both.Go(func() { _ = d.link.Run(ctx) })
			both.Go(func() { d.pretend(ctx) })
			both.Wait()
		})
	}
	return f
}

// token makes a join token as `petrel token create` does.
func (h *hub) token() string {
	h.t.Helper()
	var cm *corev1.ConfigMap
	eventually(h.t, time.Minute, "the hub tells of itself", func() (ok bool) {
		var err error
		cm, err = h.client.CoreV1().ConfigMaps(jointoken.ClusterNamespace).Get(h.t.Context(), jointoken.ClusterName, metav1.GetOptions{})
		return err == nil
	})
	cluster, err := jointoken.FromConfigMap(cm)
	must(h.t, err)
	token, secret, err := jointoken.Mint(cluster, jointoken.Options{}, time.Now(), nil)
	must(h.t, err)
	_, err = h.client.CoreV1().Secrets(secret.Namespace).Create(h.t.Context(), secret, metav1.CreateOptions{})
	must(h.t, err)
	return token.String()
}

// pretend says of each pod that it runs, or has run to its end, and of one that is deleted that it is gone.
func (d *node) pretend(ctx context.Context) {
	_ = d.cache.Report(object(wire.KindNodeStatus, "node", "", d.name, wire.NodeReport{Status: encoded(d.status())}))
	changed, end := d.cache.Subscribe()
	defer end()
	said := map[string]uint64{} // version of each pod
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		d.moved.Add(1)
		select { // an agent, too, looks at its set once for many changes that come together
		case <-ctx.Done():
			return
		case <-time.After(250 * time.Millisecond):
		}
		wanted := map[string]bool{}
		network := ""
		for _, o := range d.cache.Desired() { // sorted: Node before Pod
			if o.Kind == wire.KindNode {
				network = podNetwork(o.Data)
			}
			if o.Kind != wire.KindPod || network == "" {
				continue
			}
			if wanted[o.UID] = true; said[o.UID] == o.Version {
				continue
			}
			if _, known := said[o.UID]; !known {
				d.addresses++
			}
			said[o.UID] = o.Version
			_ = d.cache.Report(object(wire.KindPodStatus, o.UID, o.Namespace, o.Name, d.podReport(&o, network)))
		}
		for uid := range said {
			if !wanted[uid] {
				delete(said, uid)
				_ = d.cache.Forget(wire.ID{Kind: wire.KindPodStatus, UID: uid})
			}
		}
	}
}

// podReport is what the node says of a pod as soon as it has it.
func (d *node) podReport(o *wire.Object, network string) wire.PodReport {
	var p corev1.Pod
	if err := json.Unmarshal(o.Data, &p); err != nil {
		panic(err) // the hub made it
	}
	r := wire.PodReport{Namespace: o.Namespace, Name: o.Name}
	switch {
	case p.DeletionTimestamp != nil:
		r.Gone = true
	case p.Spec.RestartPolicy == corev1.RestartPolicyNever:
		r.Status = encoded(ended(d.running(network, d.addresses)))
	default:
		r.Status = encoded(d.running(network, d.addresses))
	}
	return r
}

// ended is the status of a pod that has run to its end.
func ended(s corev1.PodStatus) corev1.PodStatus {
	s.Phase = corev1.PodSucceeded
	for i := range s.Conditions {
		if t := s.Conditions[i].Type; t == corev1.PodReady || t == corev1.ContainersReady {
			s.Conditions[i].Status, s.Conditions[i].Reason = corev1.ConditionFalse, "PodCompleted"
		}
	}
	c := &s.ContainerStatuses[0]
	c.Ready, c.State = false, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		Reason: "Completed", StartedAt: c.State.Running.StartedAt, FinishedAt: metav1.Now(), ContainerID: c.ContainerID}}
	return s
}

func (d *node) status() corev1.NodeStatus {
	now := metav1.Now()
	size := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("3884Mi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("28Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	s := corev1.NodeStatus{
		Capacity: size, Allocatable: size,
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("172.16.%d.%d", d.index/250, d.index%250+1)},
			{Type: corev1.NodeHostName, Address: d.name},
		},
		NodeInfo: corev1.NodeSystemInfo{
			Architecture: "arm64", OperatingSystem: "linux", OSImage: "Debian GNU/Linux 12 (bookworm)", KernelVersion: "6.6.31+rpt-rpi-v8",
			ContainerRuntimeVersion: "containerd://1.7.22", KubeletVersion: "v1.36.3", MachineID: d.name, BootID: d.name,
		},
	}
	for _, c := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		st := corev1.ConditionFalse
		if c == corev1.NodeReady {
			st = corev1.ConditionTrue
		}
		s.Conditions = append(s.Conditions, corev1.NodeCondition{Type: c, Status: st, LastTransitionTime: now, Reason: "Hollow", Message: "a simulated node"})
	}
	return s
}

// podNetwork is the start of the addresses that a node's pods have, "10.42.7." for example; empty when it has no range yet.
func podNetwork(node []byte) string {
	var n corev1.Node
	if err := json.Unmarshal(node, &n); err != nil {
		panic(err) // the hub made it
	}
	p, err := netip.ParsePrefix(n.Spec.PodCIDR)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(p.Addr().String(), "0")
}

func (d *node) running(network string, k int) corev1.PodStatus {
	now := metav1.Now()
	yes := true
	s := corev1.PodStatus{
		Phase: corev1.PodRunning, HostIP: fmt.Sprintf("172.16.%d.%d", d.index/250, d.index%250+1),
		PodIP: fmt.Sprintf("%s%d", network, k%250+2), StartTime: &now, QOSClass: corev1.PodQOSBestEffort,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "app", Ready: true, Started: &yes, Image: "registry.example/app:1.4.2",
			ImageID:     "registry.example/app@sha256:3b1c0a8fb7d0c3c1c6fae6bfa3e0cf2d4ac5b6f0b0f5a3a6dd6d9d7a7c0f4e21",
			ContainerID: fmt.Sprintf("containerd://%064x", d.index*1000+k),
			State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	for _, c := range []corev1.PodConditionType{corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodReadyToStartContainers} {
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	return s
}

func object(kind wire.Kind, uid, ns, name string, v any) wire.Object {
	return wire.Object{ID: wire.ID{Kind: kind, UID: uid}, Namespace: ns, Name: name, Data: encoded(v)}
}

func encoded(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain values
	}
	return b
}

// all reports whether f holds for every node.
func (f *fleet) all(what func(*node) bool) bool {
	for _, d := range f.nodes {
		if !what(d) {
			return false
		}
	}
	return true
}

func connected(d *node) bool { return d.link.Status().Connected }

// has reports whether a node knows of an object.
func has(kind wire.Kind, name string) func(*node) bool {
	return func(d *node) bool {
		for _, o := range d.cache.Desired() {
			if o.Kind == kind && o.Name == name {
				return true
			}
		}
		return false
	}
}
