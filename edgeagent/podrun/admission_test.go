package podrun_test

import (
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/podrun"
)

// small is a node that has little, and nothing to enforce walls with.
func small(cfg *podrun.Config) {
	cfg.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("512Mi"), "pods": resource.MustParse("3")}
}

func asks(cpu, memory string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}
	}
}

func hostPort(port int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: port, ContainerPort: 80}}
	}
}

func sysctls(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: name, Value: "1"}}}
	}
}

// TestRefusedByNode checks that what a pod asks for and this node cannot give ends the pod, in kubelet's words, before anything
// of it runs.
func TestRefusedByNode(t *testing.T) {
	nope := "nope"
	tests := []struct {
		name            string
		change          func(*corev1.Pod)
		reason, message string
	}{
		{"windows", func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} },
			"PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"},
		{"cpu", asks("600m", "1Mi"), "OutOfcpu", "Node didn't have enough resource: cpu, requested: 600, used: 500, capacity: 1000"},
		{"memory", asks("1m", "300Mi"), "OutOfmemory", "Node didn't have enough resource: memory, requested: 314572800, used: 268435456, capacity: 536870912"},
		{"whole", func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("600m")}}
		}, "OutOfcpu", "Node didn't have enough resource: cpu, requested: 600, used: 500, capacity: 1000"},
		{"huge", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")}
		}, "OutOfhugepages-2Mi", "Node didn't have enough resource: hugepages-2Mi, requested: 4194304, used: 0, capacity: 0"},
		{"port", hostPort(8080), "NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		{"selector", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} },
			"NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		{"sysctl", sysctls("kernel/msgmax"), "SysctlForbidden", `forbidden sysctl: "kernel.msgmax" not allowlisted`},
		{"hostsysctl", func(p *corev1.Pod) { sysctls("net.ipv4.tcp_syncookies")(p); p.Spec.HostNetwork = true },
			"SysctlForbidden", `forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host Net enabled`},
		{"apparmor", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &nope}}
		}, "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"},
		{"apparmorc", func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}}
		}, "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, small)
				defer func() { n.stop() }()
				self := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "edge", UID: "edge", Labels: map[string]string{"disk": "card"}}}
				first := aPod("first", asks("500m", "256Mi"), hostPort(8080))
				n.apply(true, self, first)
				n.want("first", "Running main#0 running")
				n.apply(true, self, first, aPod(tt.name, tt.change))
				check := func() {
					t.Helper()
					n.mu.Lock()
					st := n.status[tt.name]
					n.mu.Unlock()
					if st.Phase != corev1.PodFailed || st.Reason != tt.reason || st.Message != "Pod was rejected: "+tt.message || len(st.ContainerStatuses) > 0 {
						t.Errorf("%s %s: %s (%v)", st.Phase, st.Reason, st.Message, st.ContainerStatuses)
					}
				}
				check()
				if events, _ := n.eventCount(tt.reason); events != 1 {
					t.Errorf("%d events", events)
				}
				n.want("first", "Running main#0 running")
				// The next life of the agent leaves it at that.
				n.stop()
				n.start()
				n.apply(true, self, first, aPod(tt.name, tt.change))
				check()
				n.want("first", "Running main#0 running")
			})
		})
	}
}

// TestAdmittedStays checks that a pod that was let in is never sent away by a node that has become smaller or been relabelled,
// also not by the next life of the agent, with or without the hub; and those that run already come before those that are new.
func TestAdmittedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, small)
		defer func() { n.stop() }()
		self := func(disk string) *corev1.Node {
			return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "edge", UID: "edge", Labels: map[string]string{"disk": disk}}}
		}
		old := aPod("old", asks("900m", "400Mi"), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "card"} })
		n.apply(true, self("card"), old)
		n.want("old", "Running main#0 running")
		n.apply(true, self("ssd"), old)
		n.stop()
		n.change = func(cfg *podrun.Config) {
			cfg.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("100Mi"), "pods": resource.MustParse("1")}
		}
		n.start()
		n.apply(false, self("ssd"), old, aPod("new", asks("100m", "1Mi")))
		n.want("old", "Running main#0 running")
		n.mu.Lock()
		defer n.mu.Unlock()
		if st := n.status["new"]; st.Reason != "OutOfpods" || !strings.Contains(st.Message, "requested: 1, used: 1, capacity: 1") {
			t.Errorf("%s: %s", st.Reason, st.Message)
		}
	})
}

// TestRoomComesBack checks that a pod that has ended, or was taken away by force, leaves its room to the next.
func TestRoomComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, small)
		defer func() { n.stop() }()
		done := aPod("done", asks("900m", "1Mi"), func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
		n.apply(true, done)
		n.fake.Exit("done", "main", 0)
		n.settle()
		forced := aPod("forced", asks("900m", "1Mi"))
		n.apply(true, done, forced)
		n.want("forced", "Running main#0 running")
		n.apply(true, done, aPod("next", asks("900m", "1Mi")))
		n.want("next", "Running main#0 running")
	})
}

// TestUserNamespaces checks that a wall that this runtime cannot build keeps the pod from starting, with the reason.
func TestUserNamespaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer func() { n.stop() }()
		no := false
		n.apply(true, aPod("p", func(p *corev1.Pod) { p.Spec.HostUsers = &no }))
		n.want("p", "Pending main#0 ContainerCreating")
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, e := range n.events {
			if e.Reason == "FailedCreatePodSandBox" && strings.Contains(e.Message, "runtime does not support user namespaces") {
				return
			}
		}
		t.Errorf("no event says why: %v", n.events)
	})
}

// TestRuntimeHandler checks that a pod whose RuntimeClass names the node's handler runs, and that another handler, or a class that
// is gone, keeps the pod from starting, with the reason.
func TestRuntimeHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer func() { n.stop() }()
		of := func(class string) func(*corev1.Pod) {
			return func(p *corev1.Pod) { p.Spec.RuntimeClassName = &class }
		}
		n.apply(true, aPod("plain", of("plain")), aPod("boxed", of("boxed")), aPod("lost", of("lost")),
			&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "plain", UID: "1"}, Handler: "runc"},
			&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "boxed", UID: "2"}, Handler: "runsc"})
		n.want("plain", "Running main#0 running")
		n.want("boxed", "Pending main#0 ContainerCreating")
		n.want("lost", "Pending main#0 ContainerCreating")
		n.mu.Lock()
		defer n.mu.Unlock()
		var said strings.Builder
		for _, e := range n.events {
			said.WriteString(e.InvolvedObject.Name + " " + e.Reason + " " + e.Message + "\n")
		}
		for _, want := range []string{
			`boxed FailedCreatePodSandBox Failed to create pod sandbox: failed to get sandbox runtime: no runtime for "runsc" is configured`,
			`lost FailedCreatePodSandBox Failed to create pod sandbox: runtimeclass.node.k8s.io "lost" not found`,
		} {
			if !strings.Contains(said.String(), want) {
				t.Errorf("no event %q in:\n%s", want, said.String())
			}
		}
	})
}
