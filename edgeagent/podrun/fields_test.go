package podrun_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// TestHostname (field log, case 07): what a pod calls itself, in the kernel, in /etc/hostname and in /etc/hosts.
func TestHostname(t *testing.T) {
	yes, override := true, "my.custom.fqdn"
	long := "a-host-name-that-is-almost-sixty-three-characters-long-xxxxxxx"
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		for _, c := range []struct {
			pod    string
			change func(*corev1.PodSpec)
			want   string // "hostname"
			hosts  string // a line of /etc/hosts
		}{
			{"plain", func(*corev1.PodSpec) {}, "plain", "10.42.0.9\tplain"},
			{"domain", func(s *corev1.PodSpec) { s.Hostname, s.Subdomain = "my-host", "sub" },
				"my-host", "10.42.0.9\tmy-host.sub.default.svc.cluster.local\tmy-host"},
			{"fqdn", func(s *corev1.PodSpec) { s.Hostname, s.Subdomain, s.SetHostnameAsFQDN = "my-host", "sub", &yes },
				"my-host.sub.default.svc.cluster.local", "10.42.0.9\tmy-host.sub.default.svc.cluster.local\tmy-host"},
			{"alone", func(s *corev1.PodSpec) { s.SetHostnameAsFQDN = &yes }, "alone", "10.42.0.9\talone"},
			{"over", func(s *corev1.PodSpec) { s.Hostname, s.Subdomain, s.HostnameOverride = "h", "sub", &override },
				override, "10.42.0.9\t" + override},
		} {
			n.apply(true, aPod(c.pod, func(p *corev1.Pod) { c.change(&p.Spec) }))
			n.want(c.pod, "Running main#0 running")
			if got := n.fake.Hostname(c.pod); got != c.want {
				t.Errorf("%s: the kernel's name is %q, want %q", c.pod, got, c.want)
			}
			if b, err := os.ReadFile(filepath.Join(n.fake.Files(c.pod), "hostname")); err != nil || string(b) != c.want+"\n" {
				t.Errorf("%s: /etc/hostname is %q, %v", c.pod, b, err)
			}
			if b, err := os.ReadFile(filepath.Join(n.fake.Files(c.pod), "hosts")); err != nil || !strings.Contains(string(b), "\n"+c.hosts+"\n") {
				t.Errorf("%s: /etc/hosts is %q, %v", c.pod, b, err)
			}
		}
		n.apply(true, aPod("long", func(p *corev1.Pod) {
			p.Spec.Hostname, p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = long, "another-long-subdomain", &yes
		}))
		n.want("long", "Pending main#0 ContainerCreating")
		want := "FQDN " + long + ".another-long-subdomain.default.svc.cluster.local is too long (64 characters is the max, 111 characters requested)"
		if got := n.message("FailedCreatePodSandBox"); !strings.HasSuffix(got, want) {
			t.Errorf("the event says %q, want %q", got, want)
		}
		if n.fake.Hostname("long") != "" {
			t.Error("a sandbox was made all the same")
		}
	})
}

// message returns the text of the latest event of a reason.
func (n *node) message(reason string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out string
	var last metav1.Time
	for _, e := range n.events {
		if e.Reason == reason && !e.LastTimestamp.Before(&last) {
			out, last = e.Message, e.LastTimestamp
		}
	}
	return out
}

// TestSubPathExprFailsAndHeals checks that a path that makes no sense holds the container back with the reason, until it does.
func TestSubPathExprFailsAndHeals(t *testing.T) {
	pod := func(uid, expr string, annotations map[string]string) *corev1.Pod {
		return aPod(uid, func(p *corev1.Pod) {
			p.Annotations = annotations
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			c := &p.Spec.Containers[0]
			c.Env = []corev1.EnvVar{{Name: "TMP", Value: "/tmp"}, {Name: "UP", Value: ".."},
				{Name: "ANNOTATION", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['mysubpath']"}}}}
			c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v", SubPathExpr: expr}}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		for uid, c := range map[string]struct{ expr, want string }{
			"absolute": {"$(TMP)", "error SubPath `/tmp` must not be an absolute path"},
			"up":       {"$(UP)", "unable to provision SubPath `..`: must not contain '..'"},
			"missing":  {"x/$(NONE)", "missing value for NONE"},
			"empty":    {"$(ANNOTATION)/foo", "error SubPath `/foo` must not be an absolute path"},
		} {
			n.apply(true, pod(uid, c.expr, nil))
			n.want(uid, "Pending main#0 CreateContainerConfigError")
			if got := n.statusOf(uid).ContainerStatuses[0].State.Waiting; got == nil || got.Message != c.want {
				t.Errorf("%s: %v, want %q", uid, got, c.want)
			}
			time.Sleep(time.Hour)
			n.settle()
			n.want(uid, "Pending main#0 CreateContainerConfigError")
		}
		if os.Getuid() != 0 {
			return // a subPath is a bind mount
		}
		n.apply(true, pod("empty", "$(ANNOTATION)/foo", map[string]string{"mysubpath": "mypath"}))
		n.want("empty", "Running main#0 running")
		if _, err := os.Stat(filepath.Join(n.dir, "empty/.volumes/v/mypath/foo")); err != nil {
			t.Error(err)
		}
		n.apply(true, deleted(pod("empty", "", nil), 1))
	})
}

// TestUnsupportedHook checks that a hook of a kind that kubelet does not run either fails, and says so.
func TestUnsupportedHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.apply(true, aPod("p", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{TCPSocket: &corev1.TCPSocketAction{}}}
		}))
		n.want("p", "Failed main#0 ended")
		if got := n.message("FailedPostStartHook"); !strings.Contains(got, "not supported") {
			t.Errorf("the event says %q", got)
		}
	})
}

// TestProbeGrace checks that a probe's own grace, where it has one, is what a container gets that it condemns.
func TestProbeGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.fake.Deaf["main"] = true
		n.fake.OnExec = func(cruntime.Container, cruntime.ExecSpec) (int, error) { return 1, nil }
		n.apply(true, aPod("p", func(p *corev1.Pod) {
			p.Spec.TerminationGracePeriodSeconds = new(int64(600))
			p.Spec.Containers[0].LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, InitialDelaySeconds: 1, TerminationGracePeriodSeconds: new(int64(20)),
				ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"no"}}}}
		}))
		time.Sleep(15 * time.Second)
		n.settle()
		n.want("p", "Running main#0 running")
		time.Sleep(10 * time.Second)
		n.settle()
		n.want("p", "Running main#1 running")
	})
}

// TestTerminationMessage covers exactly what the container has written; from its log only where it has written nothing, has
// failed, and the policy allows that.
func TestTerminationMessage(t *testing.T) {
	const log = "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stdout P DONE\n"
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		for uid, c := range map[string]struct {
			policy corev1.TerminationMessagePolicy
			file   string
			code   int
			want   string
		}{
			"file":      {corev1.TerminationMessageReadFile, "OK", 0, "OK"},
			"newline":   {corev1.TerminationMessageReadFile, "OK\n", 1, "OK\n"},
			"none":      {corev1.TerminationMessageReadFile, "", 1, ""},
			"fallback":  {corev1.TerminationMessageFallbackToLogsOnError, "", 1, "one\nDONE"},
			"both":      {corev1.TerminationMessageFallbackToLogsOnError, "OK", 1, "OK"},
			"upgrade":   {corev1.TerminationMessageReadFile, "of the agent before", 0, "of the agent before"},
			"succeeded": {corev1.TerminationMessageFallbackToLogsOnError, "", 0, ""},
			"long":      {corev1.TerminationMessageReadFile, strings.Repeat("-", 4096) + "why", 1, strings.Repeat("-", 4093) + "why"},
		} {
			s := n.started(aPod(uid, func(p *corev1.Pod) {
				p.Spec.RestartPolicy = corev1.RestartPolicyNever
				p.Spec.Containers[0].TerminationMessagePath, p.Spec.Containers[0].TerminationMessagePolicy = "/last", c.policy
			}))
			for _, m := range s.Mounts {
				if m.Target == "/last" {
					path := m.Source
					if uid == "upgrade" {
						path = filepath.Join(n.dir, uid, "main", "0.message")
					}
					if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(c.file), 0o666)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := os.MkdirAll(filepath.Dir(s.LogPath), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.LogPath, []byte(log), 0o644); err != nil {
				t.Fatal(err)
			}
			n.fake.Exit(uid, "main", c.code)
			n.settle()
			end := n.statusOf(uid).ContainerStatuses[0].State.Terminated
			if end == nil || end.Message != c.want {
				t.Errorf("%s: %+v, want %q", uid, end, c.want)
			}
		}
	})
}

// TestMessagesShareTheirRoom checks that the messages of a pod with many containers are cut to equal shares of 12 KiB, as
// kubelet does.
func TestMessagesShareTheirRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.apply(true, aPod("many", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			for i := range 5 {
				more := *p.Spec.Containers[0].DeepCopy()
				more.Name = fmt.Sprint("more-", i)
				p.Spec.Containers = append(p.Spec.Containers, more)
			}
			p.Spec.Containers[0].TerminationMessagePath = "/last"
		}))
		n.settle()
		for _, m := range n.fake.Spec("many", "main").Mounts {
			if m.Target == "/last" {
				if err := os.WriteFile(m.Source, []byte("begin"+strings.Repeat("-", 4000)), 0o666); err != nil {
					t.Fatal(err)
				}
			}
		}
		n.fake.Exit("many", "main", 1)
		n.settle()
		for _, c := range n.statusOf("many").ContainerStatuses {
			if end := c.State.Terminated; c.Name == "main" && (end == nil || len(end.Message) != 2048 || !strings.HasPrefix(end.Message, "begin")) {
				t.Errorf("%+v, want 2048 bytes", end)
			}
		}
	})
}

// TestDeadlineOfAnEarlierLife covers what the agent knows after its restart of how long a pod has been active. A start that was
// stamped by a clock at 1970 is not taken at its word: the pod is no older than its creation.
func TestDeadlineOfAnEarlierLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		pod := aPod("p", func(p *corev1.Pod) {
			p.CreationTimestamp = metav1.Now()
			p.Spec.ActiveDeadlineSeconds = new(int64(600))
		})
		n.started(pod)
		time.Sleep(5 * time.Minute)
		n.stop()
		path := filepath.Join(n.dir, "p/status.json")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		was := n.statusOf("p").StartTime.UTC().Format(time.RFC3339)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), was, "1970-01-01T00:00:30Z")), 0o600); err != nil {
			t.Fatal(err)
		}
		n.start()
		defer n.stop()
		n.apply(true, pod)
		n.want("p", "Running main#0 running")
		time.Sleep(4 * time.Minute)
		n.settle()
		n.want("p", "Running main#0 running")
		time.Sleep(2 * time.Minute)
		n.settle()
		n.want("p", "Failed main#0 ended")
	})
}
