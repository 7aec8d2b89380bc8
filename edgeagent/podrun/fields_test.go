package podrun_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
			if b, err := os.ReadFile(filepath.Join(n.dir, c.pod, ".etc/hostname")); err != nil || string(b) != c.want+"\n" {
				t.Errorf("%s: /etc/hostname is %q, %v", c.pod, b, err)
			}
			if b, err := os.ReadFile(filepath.Join(n.dir, c.pod, ".etc/hosts")); err != nil || !strings.Contains(string(b), "\n"+c.hosts+"\n") {
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

// TestSubPathExprFailsAndHeals: a path that makes no sense holds the container back with the reason, until it does.
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
			if got := n.status[uid].ContainerStatuses[0].State.Waiting; got == nil || got.Message != c.want {
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
