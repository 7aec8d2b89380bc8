// Package node says what this machine is and how it feels: capacity, identity, addresses, conditions. It looks at the
// kernel's own files, and reports only what has changed.
package node

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/storage"
	"petrel.dev/petrel/internal/buildinfo"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/stall"
	"petrel.dev/petrel/internal/wire"
)

// Thresholds below which a node calls itself short of something; those of kubelet's hard eviction.
const (
	minMemory  = 100 << 20 // bytes available
	maxPIDPart = 90        // percent of all process IDs in use
	// calm is how long a pressure must be over before it is called over, so that a machine at the edge does not flap.
	calm = time.Minute
	// look is how often the machine is looked at.
	look = 30 * time.Second
)

// Config of a Node.
type Config struct {
	Name string
	// Addresses of the node, the main one first; empty: found out by the default route.
	Addresses []netip.Addr
	// Bridge is the agent's own pod bridge: its address is no way to this node.
	Bridge string
	// DataDir is on the file system whose space counts.
	DataDir string
	// ImageDir is on the file system of images and containers; empty: on DataDir's.
	ImageDir string
	// Disk is how much of both stays free; the zero value stands for storage.Default.
	Disk storage.Policy
	// Labels of the operator's choice; they win over those found.
	Labels map[string]string
	// ArchVariant of the machine's architecture ("v6" of arm); empty where it makes no difference.
	ArchVariant string
	// MaxPods is 110 when zero.
	MaxPods int64
	// RuntimeVersion is as in status.nodeInfo: "containerd://1.7.24".
	RuntimeVersion string
	// RecursiveReadOnly is true if mounts can be read-only with all that is mounted below them.
	RecursiveReadOnly bool
	// NoMemoryLimits, if not empty, says why memory limits cannot be kept here and what to do; NoMemoryReason is the
	// condition's reason for it.
	NoMemoryLimits, NoMemoryReason string
	// NotReady returns why pods cannot run yet, or "".
	NotReady func() string
	// Problems returns what does not work in the node's network, in a stable order, though pods run; nil: there are none.
	Problems func() []string
	// Panics returns how many panics the agent has contained since it started; nil: it does not count them.
	Panics func() uint64
	// Root is where the kernel's files are; "/" when empty. Tests have others.
	Root string
	Now  func() time.Time
}

// Node is the machine.
type Node struct {
	cfg      Config
	capacity corev1.ResourceList
	info     corev1.NodeSystemInfo
	labels   map[string]string
	kick     chan struct{}
	root     fs.FS      // the files below cfg.Root
	round    stall.Work // of Run

	mu         sync.Mutex
	addresses  []netip.Addr
	conditions []corev1.NodeCondition                 // as last reported, each type once
	pressed    map[corev1.NodeConditionType]time.Time // when it was last seen under pressure
}

// New looks at the machine.
func New(cfg Config) (*Node, error) {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Disk == (storage.Policy{}) {
		cfg.Disk = storage.Default()
	}
	if cfg.MaxPods == 0 {
		cfg.MaxPods = 110
	}
	n := &Node{round: stall.Work{Name: "node status"}, cfg: cfg, root: os.DirFS(cfg.Root), kick: make(chan struct{}, 1), pressed: map[corev1.NodeConditionType]time.Time{}}
	mem, err := meminfo(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(cfg.DataDir, &disk); err != nil {
		return nil, fmt.Errorf("node: space of %s: %w", cfg.DataDir, err)
	}
	n.capacity = corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(mem["MemTotal"], resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(disk.Blocks)*int64(disk.Bsize), resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(cfg.MaxPods, resource.DecimalSI),
	}
	n.info = systemInfo(cfg.Root)
	n.info.ContainerRuntimeVersion = cfg.RuntimeVersion
	n.info.KubeletVersion = buildinfo.GitVersion()
	n.labels = map[string]string{corev1.LabelArchStable: runtime.GOARCH, corev1.LabelOSStable: "linux", corev1.LabelHostname: cfg.Name}
	maps.Copy(n.labels, boardLabels(n.root))
	if cfg.ArchVariant != "" {
		n.labels[kube.ArchVariantLabel] = cfg.ArchVariant
	}
	maps.Copy(n.labels, cfg.Labels)
	n.findAddresses()
	return n, nil
}

// Capacity is all that the machine has.
func (n *Node) Capacity() corev1.ResourceList { return n.capacity }

// Allocatable is what the machine has for pods.
func (n *Node) Allocatable() corev1.ResourceList { return n.allocatable() }

// Memory is the machine's, in bytes.
func (n *Node) Memory() int64 { return n.capacity.Memory().Value() }

// Addresses are the node's own, the main one first.
func (n *Node) Addresses() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addresses
}

// Recheck makes Run look at the machine now: an address or the network may have changed. Addresses is as of now when it
// returns.
func (n *Node) Recheck() {
	n.findAddresses()
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// Run reports the node's status at once and whenever it changes, until ctx ends.
func (n *Node) Run(ctx context.Context, report func(wire.Object) error) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var last uint64
	for {
		n.round.Begin()
		n.findAddresses()
		obj, sum, err := n.object()
		if err == nil && sum != last {
			if err = report(obj); err == nil {
				last = sum
			}
		}
		n.round.End()
		if err != nil {
			return fmt.Errorf("node status: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-n.kick:
		}
	}
}

// Stuck returns an error when one look at the machine has gone on for longer than limit.
func (n *Node) Stuck(limit time.Duration) error { return n.round.Stuck(limit) }

// object is the report, and a sum of it that leaves out when it was made.
func (n *Node) object() (wire.Object, uint64, error) {
	st := n.Status()
	data, err := json.Marshal(&st)
	if err != nil {
		return wire.Object{}, 0, err
	}
	rep := wire.NodeReport{Labels: n.labels, Status: data}
	h := fnv.New64a()
	h.Write(data)
	if n.cfg.Panics != nil {
		rep.Panics = n.cfg.Panics()
		h.Write(binary.BigEndian.AppendUint64(nil, rep.Panics))
	}
	data, err = json.Marshal(rep)
	return wire.Object{ID: wire.ID{Kind: wire.KindNodeStatus, UID: "node"}, Version: h.Sum64(), Name: n.cfg.Name, Data: data}, h.Sum64(), err
}

// Status is the node's status as of now.
func (n *Node) Status() corev1.NodeStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	can := &corev1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &n.cfg.RecursiveReadOnly, UserNamespaces: new(false)}
	st := corev1.NodeStatus{Capacity: n.capacity, Allocatable: n.allocatable(), NodeInfo: n.info, Features: &corev1.NodeFeatures{SupplementalGroupsPolicy: new(true)},
		RuntimeHandlers: []corev1.NodeRuntimeHandler{{Features: can}, {Name: kube.RuntimeHandler, Features: can}}} // "" is the default one
	for _, a := range n.addresses {
		st.Addresses = append(st.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	st.Addresses = append(st.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.cfg.Name})
	st.Conditions = n.check()
	return st
}

// allocatable leaves out what must stay free for the machine itself.
func (n *Node) allocatable() corev1.ResourceList {
	out := n.capacity.DeepCopy()
	out[corev1.ResourceMemory] = *resource.NewQuantity(max(n.capacity.Memory().Value()-minMemory, 0), resource.BinarySI)
	disk := n.capacity[corev1.ResourceEphemeralStorage]
	out[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(max(disk.Value()-n.cfg.Disk.FloorBytes(disk.Value()), 0), resource.BinarySI)
	return out
}

// check forms the conditions; one keeps its times as long as it does not change.
func (n *Node) check() []corev1.NodeCondition {
	now := n.cfg.Now()
	var list []corev1.NodeCondition
	set := func(kind corev1.NodeConditionType, on bool, reason, message string) {
		c := corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}
		if on {
			c.Status = corev1.ConditionTrue
		}
		if old := kube.FindCondition(n.conditions, kind); old != nil && old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
			list = append(list, *old)
			return
		}
		c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		c.LastHeartbeatTime = c.LastTransitionTime
		kube.KeepTransition(n.conditions, &c)
		n.conditions = kube.SetCondition(n.conditions, c)
		list = append(list, c)
	}
	pressure := func(kind corev1.NodeConditionType, now time.Time, on bool, bad, good, text string) {
		if n.lasting(kind, now, on, calm) {
			set(kind, true, bad, "the node has "+strings.TrimPrefix(text, "no "))
		} else {
			set(kind, false, good, "the node has "+text)
		}
	}
	mem, err := meminfo(n.cfg.Root)
	pressure(corev1.NodeMemoryPressure, now, err == nil && mem["MemAvailable"] < minMemory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "no memory pressure")
	pressure(corev1.NodeDiskPressure, now, n.shortOfDisk(), "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "no disk pressure")
	pressure(corev1.NodePIDPressure, now, shortOfPIDs(n.cfg.Root), "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "no process ID pressure")
	n.boardConditions(now, set)
	if n.cfg.NoMemoryLimits != "" {
		set("petrel.dev/MemoryLimits", false, n.cfg.NoMemoryReason, "memory limits cannot be kept on this node: "+n.cfg.NoMemoryLimits)
	}
	if n.cfg.Problems != nil {
		if list := n.cfg.Problems(); len(list) > 0 {
			set("petrel.dev/Network", false, "NetworkProblems", summary(list))
		}
	}
	if why := n.notReady(); why != "" {
		set(corev1.NodeReady, false, "KubeletNotReady", why)
	} else {
		set(corev1.NodeReady, true, "KubeletReady", "the petrel agent is ready")
	}
	return list
}

// What a condition says of problems: some of them, and of each the beginning.
const (
	shownProblems = 4
	problemLength = 400 // bytes
)

// summary joins problems to the message of a condition.
func summary(list []string) string {
	var shown []string
	for _, p := range list[:min(len(list), shownProblems)] {
		if len(p) > problemLength {
			p = strings.ToValidUTF8(p[:problemLength], "") + "..."
		}
		shown = append(shown, p)
	}
	text := strings.Join(shown, "; ")
	if more := len(list) - len(shown); more > 0 {
		text += fmt.Sprintf("; and %d more, which the agent's log names", more)
	}
	return text
}

func (n *Node) notReady() string {
	if n.cfg.NotReady == nil {
		return ""
	}
	return n.cfg.NotReady()
}

// shortOfDisk reports whether a disk has less free than its floor, the one below which the agent evicts pods.
func (n *Node) shortOfDisk() bool {
	for _, dir := range []string{n.cfg.DataDir, n.cfg.ImageDir} {
		if dir == "" {
			continue
		}
		if s, err := storage.Look(dir); err == nil && n.cfg.Disk.Pressure(s) {
			return true
		}
	}
	return false
}

func shortOfPIDs(root string) bool {
	limit, err := readInt(root + "/proc/sys/kernel/pid_max")
	if err != nil {
		return false
	}
	load, err := os.ReadFile(root + "/proc/loadavg")
	if err != nil {
		return false
	}
	f := strings.Fields(string(load))
	if len(f) < 4 {
		return false
	}
	_, total, _ := strings.Cut(f[3], "/")
	var n int64
	if _, err := fmt.Sscan(total, &n); err != nil {
		return false
	}
	return n*100 > limit*maxPIDPart
}
