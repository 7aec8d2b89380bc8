package podnet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"petrel.dev/petrel/internal/wire"
)

// DefaultBridge is the bridge's name unless Config says otherwise.
const DefaultBridge = "petrel0"

// Config is what a Network needs to know of its node.
type Config struct {
	// Bridge is the name of the bridge; also names the nftables table and, with ".vx" added, the VXLAN device. At most
	// 12 characters. Empty: DefaultBridge.
	Bridge string
	// StateDir holds netns/ (pinned namespaces) and ipam/ (address records). It must be on a local file system.
	StateDir string
	// ServiceCIDRs become local on this node (AnyIP), so that svcproxy can listen on every address in them.
	ServiceCIDRs []netip.Prefix
	// ClusterCIDRs are the pod networks of all nodes together: traffic to them leaves with the pod's own address. The
	// CIDRs of known peers count as well, so it may be empty.
	ClusterCIDRs []netip.Prefix
	Log          *slog.Logger
}

// Network is the pod network of one node. Its methods may be called from several goroutines; they run one at a time.
type Network struct {
	cfg  Config
	log  *slog.Logger
	home netns.NsHandle  // the node's own namespace, open as long as the Network is
	nl   *netlink.Handle // bound to home

	mu       sync.Mutex
	podCIDRs []netip.Prefix
	mtu      int         // of the bridge and of pods
	peers    []wire.Peer // as of the last SetRoutes
	nftWarn  bool        // the warning about nftables has been given
	lastErr  string      // of the last look by Run, so that it is logged once
	ready    bool        // the last converge succeeded
	// allRouted is true if the last route succeeded for all peers.
	allRouted bool
	sockets   []ServiceSocket // as of the last SetServiceSockets
	guards    [2]guardState   // IPv4, IPv6
	noReject  bool            // the kernel cannot reject packets, only drop them
	antispoof bool            // the kernel holds pods to their addresses
	spoofWarn bool            // that it has not has been logged
	problems  map[string]string

	unreached chan struct{} // capacity 1: SetRoutes asks Run to try a peer again
}

// Attachment is how a pod is on the network.
type Attachment struct {
	NetnsPath string       // bind mount of the pod's network namespace; containers join it by path
	IPs       []netip.Addr // one for each podCIDR, in their order
	Gateway   netip.Addr   // of the first podCIDR: the bridge's address
}

// ErrNoPodCIDR says that Setup has not been given a podCIDR yet: the hub has not assigned one to this node so far.
var ErrNoPodCIDR = errors.New("podnet: this node has no pod network yet (the hub assigns one when the node joins)")

// New returns the Network of the network namespace that the caller's thread is in. It touches nothing yet; call Setup.
// It panics when cfg is unusable, which is a programming error.
func New(cfg Config) *Network {
	if cfg.Bridge == "" {
		cfg.Bridge = DefaultBridge
	}
	if len(cfg.Bridge) > 12 || cfg.StateDir == "" {
		panic(fmt.Sprintf("podnet: bad config: bridge %q (at most 12 characters), state directory %q", cfg.Bridge, cfg.StateDir))
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Network{cfg: cfg, log: cfg.Log, home: netns.None(), problems: map[string]string{},
		unreached: make(chan struct{}, 1)}
	runtime.LockOSThread() // the handle must be of the caller's namespace, whatever thread runs it later
	defer runtime.UnlockOSThread()
	if home, err := netns.Get(); err == nil {
		n.home = home
	}
	return n
}

// open makes the netlink sockets on first use, so that New cannot fail.
func (n *Network) open() error {
	if n.nl != nil {
		return nil
	}
	if !n.home.IsOpen() {
		return errors.New("podnet open: cannot open this process's network namespace; is /proc mounted?")
	}
	nl, err := netlink.NewHandleAt(n.home)
	if err != nil {
		return fmt.Errorf("podnet open netlink: %w", explain(err))
	}
	n.nl = nl
	return nil
}

// Setup makes the node ready: forwarding, service addresses, and, when podCIDRs is not empty, bridge and masquerading.
// Host bits in a podCIDR are ignored. With the podCIDRs of the last successful call it does nothing, so it may be called
// at every change of the desired set; what others disturb later, Run repairs. Peers out of reach are no error here.
func (n *Network) Setup(ctx context.Context, podCIDRs []netip.Prefix) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	cidrs := make([]netip.Prefix, 0, len(podCIDRs))
	for _, c := range podCIDRs {
		if !c.IsValid() || hostBits(c) < 2 {
			return fmt.Errorf("podnet setup: podCIDR %v is invalid or too small (at least a /30 or /126)", c)
		}
		cidrs = append(cidrs, c.Masked())
	}
	if n.ready && slices.Equal(n.podCIDRs, cidrs) {
		return nil
	}
	n.podCIDRs = cidrs
	if err := n.converge(); err != nil || len(cidrs) == 0 {
		return err
	}
	return n.routed(n.route(ctx), false)
}

// converge brings the node itself to what Setup last asked for. The caller holds mu, and calls route next.
func (n *Network) converge() (err error) {
	n.ready, n.allRouted = false, false
	defer func() { n.ready = err == nil }()
	if err := n.open(); err != nil {
		return err
	}
	for _, d := range []string{n.netnsDir(), n.ipamDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("podnet setup: %w", err)
		}
	}
	_ = n.guard(true) // before the service networks are local; without it, Problems says what that means
	if err := n.localServices(); err != nil {
		return err
	}
	n.lookForObstacles()
	if len(n.podCIDRs) == 0 {
		return nil
	}
	n.mtu = n.uplinkMTU()
	if err := n.ensureBridge(); err != nil {
		return err
	}
	if err := n.forwarding(); err != nil {
		return err
	}
	if err := n.sweep(); err != nil {
		return err
	}
	n.masquerade()
	return nil
}

// routed notes how route went and lets Run try again what failed. The error is for callers who asked for routes.
func (n *Network) routed(err error, asked bool) error {
	n.allRouted = err == nil
	if err == nil {
		return nil
	}
	select {
	case n.unreached <- struct{}{}:
	default:
	}
	if !asked {
		return nil
	}
	return err
}

// SetRoutes makes exactly these peers' pods reachable. Peers whose pod network overlaps with this node's own (the node
// itself among them) are skipped. A peer that cannot be reached now is tried again by Run when addresses change; it is
// reported in Problems and the error, and does not keep the others from working.
func (n *Network) SetRoutes(ctx context.Context, peers []wire.Peer) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	same := reflect.DeepEqual(n.peers, peers)
	n.peers = slices.Clone(peers)
	if len(n.podCIDRs) == 0 || same && n.allRouted {
		return nil // without a network of its own, Setup will do it
	}
	if err := n.open(); err != nil {
		return err
	}
	if !same {
		n.masquerade()     // peers' networks are exempt
		_ = n.guard(false) // and may send by VXLAN
	}
	return n.routed(n.route(ctx), true)
}

// Attach gives a pod its network: a pinned namespace with lo and eth0, an address and a default route. For a pod that
// has all of it, it changes nothing, so it also adopts what survived a restart of the agent and repairs what did not.
func (n *Network) Attach(ctx context.Context, podUID string) (Attachment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := checkUID(podUID); err != nil {
		return Attachment{}, err
	}
	if len(n.podCIDRs) == 0 {
		return Attachment{}, ErrNoPodCIDR
	}
	if err := ctx.Err(); err != nil {
		return Attachment{}, err
	}
	ips, err := n.allocate(podUID)
	if err != nil {
		return Attachment{}, fmt.Errorf("podnet attach %s: %w", podUID, err)
	}
	path, err := n.pin(podUID)
	if err != nil {
		return Attachment{}, fmt.Errorf("podnet attach %s: %w", podUID, err)
	}
	if err := n.plug(podUID, path, ips); err != nil {
		return Attachment{}, fmt.Errorf("podnet attach %s: %w", podUID, explain(err))
	}
	return Attachment{NetnsPath: path, IPs: ips, Gateway: gateway(n.podCIDRs[0])}, nil
}

// Detach takes a pod off the network and frees its address. It is fine to call it for a pod that is not attached.
// Processes still in the namespace keep it alive, but without eth0.
func (n *Network) Detach(_ context.Context, podUID string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.detach(podUID)
}

func (n *Network) detach(podUID string) error {
	if err := checkUID(podUID); err != nil {
		return err
	}
	if err := n.open(); err != nil {
		return err
	}
	if err := n.deleteLink(vethName(podUID)); err != nil {
		return fmt.Errorf("podnet detach %s: %w", podUID, err)
	}
	if err := unpin(n.netnsPath(podUID)); err != nil {
		return fmt.Errorf("podnet detach %s: %w", podUID, err)
	}
	n.forgetSender(vethName(podUID))
	if err := n.release(podUID); err != nil {
		return fmt.Errorf("podnet detach %s: %w", podUID, err)
	}
	return nil
}

// attached lists the UIDs of all pods that have a namespace or an address here, live or left over. n.mu is held.
func (n *Network) attached() ([]string, error) {
	entries, err := os.ReadDir(n.netnsDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("podnet list: %w", err)
	}
	var uids []string
	for _, e := range entries {
		uids = append(uids, e.Name())
	}
	owners, err := n.owners()
	if err != nil {
		return nil, err
	}
	for _, uid := range owners {
		uids = append(uids, uid)
	}
	slices.Sort(uids)
	return slices.Compact(uids), nil
}

// Problems returns, by subject, what does not work at the moment and why: peers without a route, masquerading that the
// kernel lacks, a firewall or a LAN that is in the way.
func (n *Network) Problems() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[string]string, len(n.problems))
	for k, v := range n.problems {
		out[k] = v
	}
	return out
}

// NodeProblems lists those of Problems that are the node's own, sorted: not which peers are out of reach.
func (n *Network) NodeProblems() []string {
	var out []string
	for subject, reason := range n.Problems() {
		if !strings.HasPrefix(subject, peerProblem) {
			out = append(out, subject+": "+reason)
		}
	}
	slices.Sort(out)
	return out
}

func (n *Network) netnsDir() string               { return filepath.Join(n.cfg.StateDir, "netns") }
func (n *Network) netnsPath(podUID string) string { return filepath.Join(n.netnsDir(), podUID) }
func (n *Network) ipamDir() string                { return filepath.Join(n.cfg.StateDir, "ipam") }
func (n *Network) vxlanName() string              { return n.cfg.Bridge + ".vx" }

// checkUID keeps UIDs, which become file names, harmless.
func checkUID(uid string) error {
	if uid == "" || len(uid) > 128 || strings.ContainsAny(uid, "/\x00\n") || uid[0] == '.' {
		return fmt.Errorf("podnet: %q is not a pod UID", uid)
	}
	return nil
}

// vethPrefix marks the host ends of pods' veth pairs.
const vethPrefix = "pt"

// vethName is the host end of a pod's veth pair: stable, and within the kernel's 15 characters.
func vethName(podUID string) string {
	sum := sha256.Sum256([]byte(podUID))
	return vethPrefix + hex.EncodeToString(sum[:6])
}
