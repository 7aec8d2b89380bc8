package podrun_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/svcproxy"
)

// started applies a pod with what it needs and returns what its container was started with.
func (n *node) started(pod *corev1.Pod, with ...any) cruntime.ContainerSpec {
	n.t.Helper()
	n.apply(true, append(with, pod)...)
	n.want(string(pod.UID), "Running main#0 running")
	return n.fake.Spec(string(pod.UID), "main")
}

// TestSecurityFields covers who a container's processes are; what it says itself wins over what its pod says.
func TestSecurityFields(t *testing.T) {
	pod := corev1.PodSecurityContext{RunAsUser: new(int64(1000)), RunAsGroup: new(int64(2000)), RunAsNonRoot: new(true), FSGroup: new(int64(3000)),
		SupplementalGroups: []int64{4000}, SupplementalGroupsPolicy: new(corev1.SupplementalGroupsPolicyStrict)}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   func(s *cruntime.Security)
	}{
		"pod": {func(p *corev1.Pod) { p.Spec.SecurityContext = pod.DeepCopy() }, func(s *cruntime.Security) {
			s.RunAsUser, s.RunAsGroup, s.NonRoot, s.Groups, s.StrictGroups = new(int64(1000)), new(int64(2000)), true, []int64{4000, 3000}, true
		}},
		"container": {func(p *corev1.Pod) {
			p.Spec.SecurityContext = pod.DeepCopy()
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64(1)), RunAsGroup: new(int64(2)), RunAsNonRoot: new(false)}
		}, func(s *cruntime.Security) {
			s.RunAsUser, s.RunAsGroup, s.NonRoot, s.Groups, s.StrictGroups = new(int64(1)), new(int64(2)), false, []int64{4000, 3000}, true
		}},
		"privileged": {func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: new(true), ReadOnlyRootFilesystem: new(true)}
		}, func(s *cruntime.Security) { s.Privileged, s.ReadOnlyRoot = true, true }},
		"capabilities": {func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: new(false),
				Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"net_admin", "CAP_SYS_TIME"}, Drop: []corev1.Capability{"ALL"}}}
		}, func(s *cruntime.Security) {
			s.NoNewPrivileges, s.AddCaps, s.DropCaps = true, []string{"NET_ADMIN", "SYS_TIME"}, []string{"ALL"}
		}},
		"profiles": {func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{
				SeccompProfile:  &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined},
				AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined},
				Sysctls:         []corev1.Sysctl{{Name: "net/ipv4/tcp_syncookies", Value: "0"}}}
		}, func(s *cruntime.Security) {
			s.SeccompUnconfined, s.AppArmorUnconfined, s.Sysctls = true, true, map[string]string{"net.ipv4.tcp_syncookies": "0"}
		}},
		"profiles of the container": {func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{
				SeccompProfile:  &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined},
				AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}}
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ProcMount: new(corev1.UnmaskedProcMount),
				SeccompProfile:  &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: new("my/profile.json")},
				AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}}
		}, func(s *cruntime.Security) {
			s.UnmaskedProc, s.AppArmorDefault, s.SeccompProfile = true, true, "my/profile.json"
		}},
		"default profile": {func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
		}, func(s *cruntime.Security) { s.SeccompDefault = true }},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, func(c *podrun.Config) { c.Host.AppArmor = true })
			defer n.stop()
			plain := n.started(aPod("plain")).Security
			c.want(&plain)
			if got := n.started(aPod("p", c.change)).Security; !reflect.DeepEqual(got, plain) {
				t.Errorf("%s: %+v, want %+v", name, got, plain)
			}
		})
	}
}

// TestContainerFields covers what a container runs, where, with which mounts, and which namespaces of the node it stays
// in.
func TestContainerFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, func(c *podrun.Config) { c.Host.RecursiveReadOnly = true })
		defer n.stop()
		dir := t.TempDir()
		s := n.started(aPod("p", func(p *corev1.Pod) {
			p.Spec.HostNetwork, p.Spec.HostPID, p.Spec.HostIPC = true, true, true
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
			c := &p.Spec.Containers[0]
			c.Command, c.Args, c.WorkingDir = []string{"run", "$(X)"}, []string{"$(X)", "$$(X)", "$(Y)"}, "/srv"
			c.Env = []corev1.EnvVar{{Name: "X", Value: "1"}}
			c.Stdin, c.StdinOnce, c.TTY, c.TerminationMessagePath = true, true, true, "/last"
			c.VolumeMounts = []corev1.VolumeMount{
				{Name: "v", MountPath: "/a", ReadOnly: true, RecursiveReadOnly: new(corev1.RecursiveReadOnlyEnabled)},
				{Name: "v", MountPath: "/b", ReadOnly: true, RecursiveReadOnly: new(corev1.RecursiveReadOnlyDisabled)},
				{Name: "v", MountPath: "/c", MountPropagation: new(corev1.MountPropagationHostToContainer)},
				{Name: "v", MountPath: "/d", MountPropagation: new(corev1.MountPropagationBidirectional)},
			}
		}))
		if !slices.Equal(s.Command, []string{"run", "1"}) || !slices.Equal(s.Args, []string{"1", "$(X)", "$(Y)"}) || s.WorkingDir != "/srv" {
			t.Errorf("runs %q %q in %s", s.Command, s.Args, s.WorkingDir)
		}
		if !s.Stdin || !s.StdinOnce || !s.TTY || !s.HostNet || !s.HostPID || !s.HostIPC || s.NetnsPath != "" {
			t.Errorf("spec %+v", s)
		}
		want := map[string]cruntime.Mount{
			"/a": {Source: dir, ReadOnly: true, Recursive: true},
			"/b": {Source: dir, ReadOnly: true},
			"/c": {Source: dir, Propagation: "rslave"},
			"/d": {Source: dir, Propagation: "rshared"},
		}
		last := false
		for _, m := range s.Mounts {
			last = last || m.Target == "/last"
			if w, ok := want[m.Target]; ok {
				if w.Target = m.Target; m != w {
					t.Errorf("mount %+v, want %+v", m, w)
				}
				delete(want, m.Target)
			}
		}
		if len(want) > 0 || !last {
			t.Errorf("not mounted: %v; a place for the termination message: %v", want, last)
		}
		if s := n.started(aPod("own")); s.HostNet || s.HostPID || s.HostIPC || s.NetnsPath == "" {
			t.Errorf("without asking: %+v", s)
		}
	})
}

// TestSELinuxOptions checks that labels that would mean something and are not set keep a pod from starting.
func TestSELinuxOptions(t *testing.T) {
	labelled := func(uid string) *corev1.Pod {
		return aPod(uid, func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: "s0:c1,c2"}}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.started(labelled("without")) // the kernel has no SELinux: as containerd, which leaves them out
		n.stop()
		n.change = func(c *podrun.Config) { c.Host.SELinux = true }
		n.start()
		defer n.stop()
		n.apply(true, labelled("with"))
		if st := n.statusOf("with"); st.Phase != corev1.PodFailed || st.Reason != "UnexpectedAdmissionError" {
			t.Errorf("%s, %s", st.Phase, st.Reason)
		}
		n.apply(true, aPod("debugged", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "d", Image: p.Spec.Containers[0].Image,
				SecurityContext: &corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: "s0:c1,c2"}}}}}
		}))
		st := n.statusOf("debugged")
		if w := st.EphemeralContainerStatuses[0].State.Waiting; st.Phase != corev1.PodRunning || w == nil || w.Reason != "CreateContainerConfigError" {
			t.Errorf("%s, %+v", st.Phase, st.EphemeralContainerStatuses[0].State)
		}
	})
}

// TestEnvironment covers every source of variables, later ones winning.
func TestEnvironment(t *testing.T) {
	cm := &corev1.ConfigMap{Data: map[string]string{"a": "1", "b.c": "2"}}
	cm.Namespace, cm.Name, cm.UID = "default", "cm", "cm"
	sec := &corev1.Secret{Data: map[string][]byte{"s": []byte("3")}}
	sec.Namespace, sec.Name, sec.UID = "default", "sec", "sec"
	svc := &svcproxy.Service{Namespace: "default", Name: "db", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.43.0.7")}, Ports: []svcproxy.Port{{Port: 5432, Protocol: svcproxy.TCP}}}
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	env := func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
		c.EnvFrom = []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("cm")}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("sec")}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("none"), Optional: new(true)}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("none"), Optional: new(true)}}}
		from := func(name string, s corev1.EnvVarSource) corev1.EnvVar {
			return corev1.EnvVar{Name: name, ValueFrom: &s}
		}
		c.Env = []corev1.EnvVar{{Name: "V", Value: "$(P_a)$(s)"},
			from("CM", corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("cm"), Key: "a"}}),
			from("SEC", corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("sec"), Key: "s"}}),
			from("NONE", corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("sec"), Key: "x", Optional: new(true)}}),
			from("NONE", corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("none"), Key: "x", Optional: new(true)}}),
			from("POD", corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}),
			from("MEM", corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "main", Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}})}
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		got := n.started(aPod("p", env), cm, sec, svc).Env
		for _, want := range []string{"P_a=1", "P_b.c=2", "s=3", "V=13", "CM=1", "SEC=3", "POD=p", "MEM=64", "DB_SERVICE_HOST=10.43.0.7", "DB_PORT=tcp://10.43.0.7:5432"} {
			if !slices.Contains(got, want) {
				t.Errorf("%s is not among %q", want, got)
			}
		}
		if slices.ContainsFunc(got, func(kv string) bool { return strings.HasPrefix(kv, "NONE=") }) {
			t.Error("an optional key that is not there has a value")
		}
		quiet := n.started(aPod("q", env, func(p *corev1.Pod) { p.Spec.EnableServiceLinks = new(false) }), cm, sec, svc).Env
		if slices.ContainsFunc(quiet, func(kv string) bool { return strings.HasPrefix(kv, "DB_") }) {
			t.Error("a pod that wants no links to Services has them")
		}
	})
}

// TestEnvironmentFromFile covers variables from a file that an earlier container has left in an emptyDir.
func TestEnvironmentFromFile(t *testing.T) {
	pod := func(uid string, ref corev1.FileKeySelector) *corev1.Pod {
		return aPod(uid, func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "app:1"}}
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "F", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &ref}}}
		})
	}
	const file = "# a comment\n\nA='one'\n  B='two words' # more\nC='over\nlines'\nD= 'empty'\nE='$(A) \\n'\n"
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		for i, c := range []struct {
			ref  corev1.FileKeySelector
			text string // of the file "env"; "link" makes it lead out of the volume
			want string // F, or after ! the reason that the container waits for
		}{
			{corev1.FileKeySelector{Key: "A"}, file, "one"},
			{corev1.FileKeySelector{Key: "B"}, file, "two words"},
			{corev1.FileKeySelector{Key: "C"}, file, "over\nlines"},
			{corev1.FileKeySelector{Key: "E"}, file, `$(A) \n`},
			{corev1.FileKeySelector{Key: "D"}, file, `!environment variable key "D" not found in file "env"`},
			{corev1.FileKeySelector{Key: "X", Optional: new(true)}, file, ""},
			{corev1.FileKeySelector{Key: "X", Path: "none", Optional: new(true)}, file, ""},
			{corev1.FileKeySelector{Key: "X", Path: "none"}, file, `!file "none" is not in volume "v"; an init container has to write it`},
			{corev1.FileKeySelector{Key: "X"}, "A=1\n", "!couldn't parse env file: env: line 1: value must be enclosed in single quotes"},
			{corev1.FileKeySelector{Key: "X"}, "A='1\n", "!couldn't parse env file: env: line 1: unclosed single quote"},
			{corev1.FileKeySelector{Key: "X"}, "A='1' 2\n", "!couldn't parse env file: env: line 1: unexpected content after closing quote"},
			{corev1.FileKeySelector{Key: "X"}, "A ='1'\n", "!couldn't parse env file: env: line 1: whitespace before '=' is not allowed"},
			{corev1.FileKeySelector{Key: "X"}, strings.Repeat("#", 1<<20), "!couldn't parse env file: env: "},
			{corev1.FileKeySelector{Key: "X"}, "link", `!file "env" is not in volume "v"; an init container has to write it`},
		} {
			uid := fmt.Sprint("p", i)
			if c.ref.VolumeName = "v"; c.ref.Path == "" {
				c.ref.Path = "env"
			}
			n.apply(true, pod(uid, c.ref))
			path := filepath.Join(n.dir, uid, ".volumes/v/env")
			var err error
			if c.text == "link" {
				err = os.Symlink("/etc/hostname", path)
			} else {
				err = os.WriteFile(path, []byte(c.text), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			n.fake.Exit(uid, "init", 0)
			n.settle()
			if want, waits := strings.CutPrefix(c.want, "!"); waits {
				st := n.statusOf(uid).ContainerStatuses[0].State.Waiting
				if st == nil || st.Reason != "CreateContainerConfigError" || !strings.HasPrefix(st.Message, want) || strings.Contains(st.Message, n.dir) {
					t.Errorf("%+v: %+v, want %q", c.ref, st, want)
				}
				continue
			}
			got := ""
			for _, kv := range n.fake.Spec(uid, "main").Env {
				if v, ok := strings.CutPrefix(kv, "F="); ok {
					got = v
				}
			}
			if got != c.want || !strings.Contains(n.line(uid), "running") {
				t.Errorf("%+v: %q, want %q (%s)", c.ref, got, c.want, n.line(uid))
			}
		}
	})
}

// TestResolver covers dnsPolicy and dnsConfig in resolv.conf, hostAliases in hosts.
func TestResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		read := func(uid, file string) string {
			b, err := os.ReadFile(filepath.Join(n.fake.Files(uid), file))
			if err != nil {
				t.Error(err)
			}
			return string(b)
		}
		n.started(aPod("first", func(p *corev1.Pod) { p.Spec.DNSPolicy = corev1.DNSClusterFirst }))
		if got := read("first", "resolv.conf"); !strings.HasPrefix(got, "search default.svc.cluster.local svc.cluster.local cluster.local") ||
			!strings.Contains(got, "nameserver 10.43.0.10\n") {
			t.Errorf("ClusterFirst: %q", got)
		}
		n.started(aPod("none", func(p *corev1.Pod) {
			p.Spec.DNSPolicy = corev1.DNSNone
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53"}, Searches: []string{"example.test"},
				Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: new("2")}, {Name: "edns0"}}}
			p.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"foo", "bar"}}}
		}))
		if got, want := read("none", "resolv.conf"), "search example.test\nnameserver 192.0.2.53\noptions ndots:2 edns0\n"; got != want {
			t.Errorf("None: %q, want %q", got, want)
		}
		if got := read("none", "hosts"); !strings.HasSuffix(got, "192.0.2.9\tfoo\tbar\n") {
			t.Errorf("hosts: %q", got)
		}
		n.started(aPod("host", func(p *corev1.Pod) { p.Spec.DNSPolicy, p.Spec.HostNetwork = corev1.DNSClusterFirstWithHostNet, true }))
		if got := read("host", "resolv.conf"); !strings.Contains(got, "nameserver 10.43.0.10\n") {
			t.Errorf("ClusterFirstWithHostNet: %q", got)
		}
		n.started(aPod("default", func(p *corev1.Pod) { p.Spec.DNSPolicy = corev1.DNSDefault }))
		if got := read("default", "resolv.conf"); strings.Contains(got, "10.43.0.10") {
			t.Errorf("Default: %q", got)
		}
	})
}

// TestReadinessGates checks that a pod is ready when its containers are and the conditions of others are True, and only as long. Those conditions
// are not the node's to report.
func TestReadinessGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		pod := aPod("p", func(p *corev1.Pod) {
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.test/lb"}}
		})
		ready := func() string {
			for _, c := range n.statusOf("p").Conditions {
				if c.Type == corev1.PodReady {
					return string(c.Status) + " " + c.Reason + c.Message
				}
			}
			return ""
		}
		n.started(pod)
		if got := ready(); got != `False ReadinessGatesNotReadycorresponding condition of pod readiness gate "example.test/lb" does not exist.` {
			t.Errorf("before the gate: %s", got)
		}
		for _, c := range []struct {
			status corev1.ConditionStatus
			want   string
		}{{corev1.ConditionTrue, "True "}, {corev1.ConditionFalse, `False ReadinessGatesNotReadythe status of pod readiness gate "example.test/lb" is not "True", but False`},
			{corev1.ConditionTrue, "True "}} {
			pod = pod.DeepCopy()
			pod.Status.Conditions = []corev1.PodCondition{{Type: "example.test/lb", Status: c.status}}
			n.started(pod)
			if got := ready(); got != c.want {
				t.Errorf("%s: %s", c.status, got)
			}
		}
		if kube.FindCondition(n.statusOf("p").Conditions, "example.test/lb") != nil {
			t.Error("the node reports a condition that is not its own")
		}
	})
}

// TestHostPorts covers readiness of containers and of sidecars.
func TestHostPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.started(aPod("p", func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 8080, ContainerPort: 80, HostIP: "192.0.2.1"}}
			p.Spec.InitContainers = []corev1.Container{{Name: "side", Image: "app:1", RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
				Ports: []corev1.ContainerPort{{HostPort: 5353, ContainerPort: 53, Protocol: corev1.ProtocolUDP}}}}
		}))
		want := []svcproxy.HostPort{
			{HostIP: netip.MustParseAddr("192.0.2.1"), Port: 8080, Protocol: svcproxy.TCP, Target: netip.MustParseAddrPort("10.42.0.9:80")},
			{Port: 5353, Protocol: svcproxy.UDP, Target: netip.MustParseAddrPort("10.42.0.9:53")},
		}
		if got := n.manager.HostPorts(); !slices.Equal(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}
