package podrun

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/podrun/resize"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/kube"
)

// site is what a new pod finds on its node.
type site struct {
	name        string
	labels      map[string]string // nil: not known yet, so selectors cannot be checked
	allocatable corev1.ResourceList
	host        cruntime.Host
	others      []*corev1.Pod
	short       bool // of disk
}

// admit decides, once for each pod that is new to the node, whether it may run here. The scheduler has asked most of it
// before; but a pod may name its node itself, and the hub may have known less. A pod that has been let in once is never
// asked again: neither a restart of the agent nor a change of the node ends it.
func (w *worker) admit(d lifecycle.Target, containers []cruntime.Container) {
	known := w.mem.Admitted || w.mem.Rejected.Reason != ""
	if !known && (w.mem.Last.StartTime != nil || len(containers) > 0) {
		w.mem.Admitted, known = true, true
		w.show()
	}
	if known || d.Deleting() {
		return
	}
	w.allocation = resize.Allocation{} // what an earlier life has left was not let in
	w.m.admitting.Lock()
	defer w.m.admitting.Unlock()
	why := w.m.site(w.uid).check(d.Pod)
	w.mem.Admitted, w.mem.Rejected = why.Reason == "", why
	w.show() // before the next pod is compared with this one
	if why.Reason != "" {
		w.m.cfg.Log.Warn("pod refused", "pod", d.Pod.Name, "namespace", d.Pod.Namespace, "reason", why.Reason, "message", why.Message)
		w.m.events.Record(d.Pod, nil, corev1.EventTypeWarning, why.Reason, "%s", why.Message)
	}
}

// site is the node as it is for one more pod.
func (m *Manager) site(uid string) site {
	want := m.want.Load()
	s := site{name: m.cfg.NodeName, allocatable: m.cfg.Allocatable, host: m.cfg.Host, short: m.short.Load()}
	if n := want.set.Node; n != nil {
		s.name = n.Name
		s.labels = map[string]string{corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH, corev1.LabelHostname: s.name}
		for k, v := range n.Labels {
			s.labels[k] = v
		}
	}
	for _, other := range m.all() {
		if other.uid == uid {
			continue
		}
		if pod := other.occupies(want); pod != nil {
			s.others = append(s.others, withStatus(pod, other.shown.Load().last))
		}
	}
	return s
}

// check returns why the pod may not run here.
func (s site) check(pod *corev1.Pod) lifecycle.Rejection {
	for _, f := range []func(*corev1.Pod) lifecycle.Rejection{s.pressure, s.system, s.sysctls, s.resources, s.selectors, s.ports, s.confinement} {
		if why := f(pod); why.Reason != "" {
			return why
		}
	}
	return lifecycle.Rejection{}
}

// system refuses a pod that is made for another operating system.
func (s site) system(pod *corev1.Pod) lifecycle.Rejection {
	if os, ok := pod.Labels[corev1.LabelOSStable]; ok && os != runtime.GOOS {
		return refuse("PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label")
	}
	if pod.Spec.OS != nil && string(pod.Spec.OS.Name) != runtime.GOOS {
		return refuse("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
	}
	return lifecycle.Rejection{}
}

// safeSysctls are those that a pod may set: they are its own, and no other pod notices. The list is upstream's.
var safeSysctls = []string{
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}

// sysctls refuses kernel parameters that other pods would notice, or that are the node's own.
func (s site) sysctls(pod *corev1.Pod) lifecycle.Rejection {
	if pod.Spec.SecurityContext == nil {
		return lifecycle.Rejection{}
	}
	for _, sc := range pod.Spec.SecurityContext.Sysctls {
		name := sysctl.NormalizeName(sc.Name)
		space, _, _ := sysctl.GetNamespace(name)
		switch {
		case !slices.Contains(safeSysctls, name):
			return refuse("SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowlisted", name))
		case space == sysctl.IPCNamespace && pod.Spec.HostIPC, space == sysctl.NetNamespace && pod.Spec.HostNetwork:
			return refuse("SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowed with host %s enabled", name, space))
		}
	}
	return lifecycle.Rejection{}
}

// resources compares what the pod asks for with what the others leave of the node.
func (s site) resources(pod *corev1.Pod) lifecycle.Rejection {
	lacks := func(name corev1.ResourceName, asked, used, all int64) lifecycle.Rejection {
		return refuse("OutOf"+string(name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, asked, used, all))
	}
	if all, ok := s.allocatable[corev1.ResourcePods]; ok && int64(len(s.others))+1 > all.Value() {
		return lacks(corev1.ResourcePods, 1, int64(len(s.others)), all.Value())
	}
	want := kube.PodRequests(pod)
	taken := make([]corev1.ResourceList, len(s.others))
	for i, other := range s.others {
		taken[i] = kube.PodRequests(other)
	}
	names := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
	for name := range want {
		if strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		amount := func(list corev1.ResourceList) int64 {
			q := list[name]
			if name == corev1.ResourceCPU {
				return q.MilliValue()
			}
			return q.Value()
		}
		if len(s.allocatable) == 0 || amount(want) <= 0 {
			continue
		}
		used := int64(0)
		for _, list := range taken {
			used += amount(list)
		}
		if all := amount(s.allocatable); amount(want) > all-used {
			return lacks(name, amount(want), used, all)
		}
	}
	return lifecycle.Rejection{}
}

// selectors compares the node with the pod's node selector and required affinity. Without the node's labels it lets all pass.
func (s site) selectors(pod *corev1.Pod) lifecycle.Rejection {
	if s.labels == nil {
		return lifecycle.Rejection{}
	}
	node := &corev1.Node{}
	node.Name, node.Labels = s.name, s.labels
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); !ok || err != nil {
		return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
	}
	return lifecycle.Rejection{}
}

// ports refuses a port of the node that another pod here has.
func (s site) ports(pod *corev1.Pod) lifecycle.Rejection {
	want := kube.HostPorts(&pod.Spec)
	if len(want) == 0 {
		return lifecycle.Rejection{}
	}
	for _, other := range s.others {
		for _, taken := range kube.HostPorts(&other.Spec) {
			if slices.ContainsFunc(want, taken.Clashes) {
				return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
			}
		}
	}
	return lifecycle.Rejection{}
}

// refuse is a refusal with kubelet's reason and text.
func refuse(reason, message string) lifecycle.Rejection {
	return lifecycle.Rejection{Reason: reason, Message: message}
}

// predicate is the refusal of one of the scheduler's filters, which the node asks too.
func predicate(name, text string) lifecycle.Rejection {
	return refuse(name, fmt.Sprintf("Predicate %s failed: %s", name, text))
}

// confinement refuses a pod that asks for a wall which this node cannot build.
func (s site) confinement(pod *corev1.Pod) lifecycle.Rejection {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		p := podspec.AppArmor(pod, &c)
		if p == nil || p.Type == corev1.AppArmorProfileTypeUnconfined {
			continue
		}
		if !s.host.AppArmor {
			return refuse("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
		}
		if p.Type == corev1.AppArmorProfileTypeLocalhost && (p.LocalhostProfile == nil || strings.TrimSpace(*p.LocalhostProfile) == "") {
			return refuse("AppArmor", fmt.Sprintf("Cannot enforce AppArmor: invalid empty AppArmor profile name: %q", p))
		}
	}
	if s.host.SELinux && asksSELinux(pod) {
		return refuse("UnexpectedAdmissionError", "this node has SELinux on, and its runtime sets no labels: remove seLinuxOptions, or place the pod on a node without SELinux")
	}
	return lifecycle.Rejection{}
}

// asksSELinux reports whether a pod, or a container of it, wants SELinux labels.
func asksSELinux(pod *corev1.Pod) bool {
	if p := pod.Spec.SecurityContext; p != nil && p.SELinuxOptions != nil {
		return true
	}
	return slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c corev1.Container) bool {
		return c.SecurityContext != nil && c.SecurityContext.SELinuxOptions != nil
	})
}
