package dispatch

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/dispatch/kubelet"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// What is invalid in a report is left out, and the rest is taken. The log and an Event on the Node name what was left out, once an
// hour.

const (
	maxLeft       = 8  // things left out of one report that are named
	maxNodeImages = 50 // of a Node's status, as with kubelet's nodeStatusMaxImages
	maxAddresses  = 16 // of a Node's status
)

// leftOut is what of a report was not taken, and why.
type leftOut struct {
	put  *wire.Put
	what []string
}

// leftOut reports what of a report was not taken.
func (i *intake) leftOut(now time.Time, node string, l leftOut) {
	what := strings.Join(l.what, "; ")
	if len(what) > maxEventMessage {
		what = what[:maxEventMessage]
	}
	name := l.put.Name
	if l.put.Namespace != "" {
		name = l.put.Namespace + "/" + name
	}
	if len(name) > 2*maxNameLogged {
		name = name[:2*maxNameLogged] + "..."
	}
	if i.events.allow(now, node+"/log/"+string(l.put.Kind)) {
		i.log.Warn("part of a node's report not taken", "node", node, "kind", l.put.Kind, "name", name, "left", what)
	}
	i.events.add(now, node, "ReportRefused", fmt.Sprintf("the hub did not take from this node's %s %s: %s", l.put.Kind, name, what))
}

// checkPodAddresses leaves out addresses that are not the pod's: those outside its node's range or, with hostNetwork, that
// cannot be its node's.
func (i *intake) checkPodAddresses(nodeName string, pod *corev1.Pod) (left []string) {
	st := &pod.Status
	if len(st.PodIPs) == 0 && st.PodIP != "" {
		st.PodIPs = []corev1.PodIP{{IP: st.PodIP}}
	}
	if len(st.HostIPs) == 0 && st.HostIP != "" {
		st.HostIPs = []corev1.HostIP{{IP: st.HostIP}}
	}
	node, _ := control.Get[*corev1.Node](i.client, kube.Node, "", nodeName)
	st.PodIPs = slices.DeleteFunc(slices.Clone(st.PodIPs), func(ip corev1.PodIP) bool {
		why := ""
		if pod.Spec.HostNetwork {
			why = i.notOfNode(node, ip.IP)
		} else {
			why = notInRange(node, ip.IP)
		}
		if why != "" {
			left = append(left, fmt.Sprintf("podIP %.50q, which %s", ip.IP, why))
		}
		return why != ""
	})
	st.HostIPs = slices.DeleteFunc(slices.Clone(st.HostIPs), func(ip corev1.HostIP) bool {
		why := i.notOfNode(node, ip.IP)
		if why != "" {
			left = append(left, fmt.Sprintf("hostIP %.50q, which %s", ip.IP, why))
		}
		return why != ""
	})
	st.PodIP, st.HostIP = "", ""
	if len(st.PodIPs) > 0 {
		st.PodIP = st.PodIPs[0].IP
	}
	if len(st.HostIPs) > 0 {
		st.HostIP = st.HostIPs[0].IP
	}
	return left[:min(len(left), maxLeft)]
}

// notInRange returns why an address cannot be that of a pod with a network of its own on a node; empty when it can.
func notInRange(node *corev1.Node, text string) string {
	a, ok := control.EndpointAddress(text)
	if !ok {
		return "is no address that an endpoint may have"
	}
	if node == nil {
		return "is of a node that does not exist"
	}
	ranges := node.Spec.PodCIDRs
	if len(ranges) == 0 && node.Spec.PodCIDR != "" {
		ranges = []string{node.Spec.PodCIDR}
	}
	for _, r := range ranges {
		if p, err := netip.ParsePrefix(r); err == nil && p.Contains(a) {
			return ""
		}
	}
	return fmt.Sprintf("is outside of the node's range %v", ranges)
}

// notOfNode returns why an address cannot be a node's own; empty when it can. Only the node knows its addresses, and they change; but
// none is in the networks of pods and Services, and none is another node's.
func (i *intake) notOfNode(node *corev1.Node, text string) string {
	a, ok := control.EndpointAddress(text)
	switch {
	case !ok:
		return "is no address that an endpoint may have"
	case slices.ContainsFunc(i.networks, func(p netip.Prefix) bool { return p.Contains(a) }):
		return "is in the network of pods or Services"
	case node == nil || hasAddress(node, a):
		return ""
	}
	for _, other := range control.List[*corev1.Node](i.client, kube.Node, "") {
		if other.Name != node.Name && hasAddress(other, a) {
			return "is an address of node " + other.Name
		}
	}
	return ""
}

func hasAddress(node *corev1.Node, a netip.Addr) bool {
	return slices.ContainsFunc(node.Status.Addresses, func(x corev1.NodeAddress) bool {
		b, err := netip.ParseAddr(x.Address)
		return err == nil && a == b
	})
}

// checkNodeStatus leaves out addresses that cannot be a node's, and bounds the lists that may grow.
func (i *intake) checkNodeStatus(st *corev1.NodeStatus) (left []string) {
	st.Addresses = slices.DeleteFunc(st.Addresses, func(a corev1.NodeAddress) bool {
		if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
			return false
		}
		why := i.notOfNode(nil, a.Address)
		if why != "" && len(left) < maxLeft {
			left = append(left, fmt.Sprintf("address %.50q, which %s", a.Address, why))
		}
		return why != ""
	})
	if n := len(st.Addresses); n > maxAddresses {
		st.Addresses = st.Addresses[:maxAddresses]
		left = append(left, fmt.Sprintf("addresses beyond %d of %d", maxAddresses, n))
	}
	st.Images = st.Images[:min(len(st.Images), maxNodeImages)]
	return left
}

// salvage returns the changes of a status update that the API refuses, with the fields that the refusal names as they are stored. what
// is empty when it names none of the status.
func salvage(p changes, err error) (rest changes, what []string) {
	var refused apierrors.APIStatus
	if !errors.As(err, &refused) || refused.Status().Details == nil {
		return p, nil
	}
	var fields []string
	for _, c := range refused.Status().Details.Causes {
		name, ok := strings.CutPrefix(c.Field, "status.")
		if !ok {
			continue
		}
		if k := strings.IndexAny(name, ".["); k >= 0 {
			name = name[:k]
		}
		if !slices.Contains(fields, name) {
			fields = append(fields, name)
			what = append(what, fmt.Sprintf("%s, which the API refuses: %.200s", c.Field, c.Message))
		}
	}
	if len(fields) == 0 {
		return p, nil
	}
	rest = changes{alone: p.alone}
	for _, w := range p.writes {
		if w.Subresource == "status" && !w.Delete && w.Old != nil {
			if w.Object = kubelet.AsStored(w.Object, w.Old, fields); w.Object == nil {
				return p, nil
			}
		}
		rest.writes = append(rest.writes, w)
	}
	return rest, what[:min(len(what), maxLeft)]
}
