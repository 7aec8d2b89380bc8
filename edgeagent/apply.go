package edgeagent

import (
	"context"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/podrun"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/svcproxy"
)

// applied calls apply; a panic in it is a failure, after which it is tried again.
func (a *Agent) applied(ctx context.Context, plane *dataPlane, synced bool) (ok bool) {
	contain.Go(a.log, "agent/apply", a.nodeName, func() { ok = a.apply(ctx, plane, synced) })
	return ok
}

// apply hands the desired set, as it is now, to plane and to the image reports; it reports whether all of it could be
// applied. synced: what is not in the set is not wanted. It decodes without the lock, which a panic would otherwise keep.
func (a *Agent) apply(ctx context.Context, plane *dataPlane, synced bool) bool {
	a.applying.Begin()
	defer a.applying.End()
	set := desired.Decode(a.cache.Desired(), a.desiredSet(), a.log)
	a.mu.Lock()
	a.set = set
	a.mu.Unlock()
	why := a.applyNetwork(ctx, plane, set)
	if plane.setNetworkError(why) {
		if why != "" {
			a.log.Info("pod network is not ready", "why", why) // as it is for a moment at every first start
		}
		a.node.Recheck()
	}
	plane.applyProxy(set)
	for _, p := range set.Pods {
		a.used.note(podrun.ImagesOf(p), time.Now())
	}
	unreported := a.images.want(set) // before the pods: the end of a pull reports only images that are wanted
	plane.pods.Apply(set, synced)
	a.reclaim.Apply(set.Reclaims)
	a.applying.End() // what follows waits for containerd, which a new start of the agent would not mend
	a.images.inspect(ctx, unreported)
	return why == ""
}

// applyNetwork brings the node's own pod network and the routes to the others up to date. It returns why the network is not
// ready; "" when it is.
func (a *Agent) applyNetwork(ctx context.Context, plane *dataPlane, set *desired.Set) string {
	if set.Node == nil || len(podCIDRs(set.Node)) == 0 {
		return "the hub has not given this node a pod CIDR yet"
	}
	if err := plane.network.Setup(ctx, podCIDRs(set.Node)); err != nil {
		return err.Error()
	}
	if err := plane.network.SetRoutes(ctx, set.Peers); err != nil {
		a.log.Warn("routes to other nodes", "error", err)
	}
	return ""
}

// podCIDRs returns the node's pod networks; what does not parse is left out.
func podCIDRs(n *corev1.Node) []netip.Prefix {
	list := n.Spec.PodCIDRs
	if len(list) == 0 && n.Spec.PodCIDR != "" {
		list = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// portsChanged applies the pods' host ports to the proxy. Pods' workers call it.
func (a *Agent) portsChanged() {
	contain.Go(a.log, "agent/proxy", a.nodeName, func() {
		a.mu.Lock()
		set, plane := a.set, a.plane
		a.mu.Unlock()
		if plane != nil {
			plane.applyProxy(set)
		}
	})
}

// applyProxy hands the Services of set and the pods' host ports to the proxy.
func (d *dataPlane) applyProxy(set *desired.Set) {
	t := svcproxy.Table{Services: set.Services, HostPorts: d.pods.HostPorts()}
	if set.Node != nil {
		t.Zone = set.Node.Labels[corev1.LabelTopologyZone]
	}
	d.proxy.Apply(t)
}

// problems returns what does not work in the node's network: rules that the kernel refuses, ports that others have.
func (a *Agent) problems() []string {
	plane := a.dataPlane()
	if plane == nil {
		return nil
	}
	out := plane.network.NodeProblems()
	for _, p := range plane.proxy.Problems() {
		out = append(out, p.Listener+" of "+p.Service+": "+p.Reason)
	}
	return out
}
