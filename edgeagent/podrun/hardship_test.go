package podrun_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/podrun"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/internal/wire"
)

// deleted is a pod whose deletion has been asked for.
func deleted(p *corev1.Pod, grace int64) *corev1.Pod {
	p = p.DeepCopy()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, &grace
	return p
}

// TestLessPatience checks that a second "kubectl delete" with a shorter grace is heeded while the first one's still runs, in
// the preStop hook too.
func TestLessPatience(t *testing.T) {
	for _, hook := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t)
			defer n.stop()
			n.fake.Deaf["main"] = true
			p := aPod("p")
			if hook {
				p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 3000}}}
			}
			n.apply(true, p)
			n.apply(true, deleted(p, 3600))
			time.Sleep(time.Minute)
			n.settle()
			n.want("p", "Running main#0 running")
			n.apply(true, deleted(p, 5))
			time.Sleep(6 * time.Second)
			n.settle()
			if !n.isGone("p") {
				t.Errorf("hook %v: pod is not gone: %s", hook, n.line("p"))
			}
		})
	}
}

// TestRuntimeAwayWhileStopping checks that a container that is being stopped is not told a second time because containerd was
// away.
func TestRuntimeAwayWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.fake.Deaf["main"] = true
		var away atomic.Bool
		n.fake.ContainersError = func() error {
			if away.Load() {
				return errors.New("containerd is away")
			}
			return nil
		}
		p := aPod("p")
		n.apply(true, p)
		n.apply(true, deleted(p, 30))
		time.Sleep(5 * time.Second)
		away.Store(true)
		time.Sleep(5 * time.Second)
		away.Store(false)
		time.Sleep(10 * time.Second)
		n.settle()
		if got := n.fake.Count("Signal"); got != 1 {
			t.Errorf("%d signals within the grace, want 1", got)
		}
		time.Sleep(15 * time.Second)
		n.settle()
		if !n.isGone("p") || n.fake.Count("Signal") != 2 {
			t.Errorf("after the grace: %s, %d signals", n.line("p"), n.fake.Count("Signal"))
		}
	})
}

// TestNobodyPullsForTheDead checks that the image of a deleted pod, or one that the pod does not want any more, is not fetched
// on.
func TestNobodyPullsForTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		var pulling atomic.Int32
		n.fake.PullWait = func(ctx context.Context, ref string) {
			pulling.Add(1)
			defer pulling.Add(-1)
			select {
			case <-ctx.Done():
			case <-time.After(time.Hour):
			}
		}
		image := func(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Containers[0].Image = name } }
		n.apply(true, aPod("p", image("huge:1")))
		n.apply(true, aPod("p", image("huge:2")))
		if got := pulling.Load(); got != 1 {
			t.Errorf("%d pulls after a change of the image, want 1", got)
		}
		n.apply(true)
		if got := pulling.Load(); got != 0 || n.manager.Running() != 0 {
			t.Errorf("%d pulls for a pod that is gone; %d pods", got, n.manager.Running())
		}
	})
}

// TestDroppedStaysDropped checks that a pod that has left the set while it is being stopped is not brought back by a new life
// of the agent that has not heard from the hub.
func TestDroppedStaysDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.fake.Deaf["main"] = true
		n.apply(true, aPod("p"))
		n.apply(false)
		time.Sleep(5 * time.Second)
		n.stop()
		n.start()
		defer func() { n.stop() }()
		n.apply(false)
		time.Sleep(40 * time.Second)
		n.settle()
		if _, err := os.Stat(filepath.Join(n.dir, "p")); err == nil || n.fake.Count("Start") != 1 {
			t.Error("the pod is still there")
		}
	})
}

// TestRebootWithoutConfigMap checks that a pod goes on when its ConfigMap is deleted, but it is not started again without it.
func TestRebootWithoutConfigMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cfg", Namespace: "default", UID: "c"}, Data: map[string]string{"A": "1"}}
		p := aPod("p", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cfg"}}}}}
		})
		n.apply(true, p, cm)
		n.apply(true, p)
		n.want("p", "Running main#0 running")
		n.stop()
		n.fake.Exit("p", "main", 255)
		n.start()
		defer func() { n.stop() }()
		n.apply(true, p)
		if got := n.fake.Count("Start"); got != 1 {
			t.Errorf("started %d times, want 1: %s", got, n.line("p"))
		}
		n.apply(true, p, cm)
		n.want("p", "Running main#1 running")
	})
}

// TestNodeAddressChanges checks that a pod on the node's own network follows it.
func TestNodeAddressChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.apply(true, aPod("p", func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
		if got := n.statusOf("p").PodIP; got != "192.0.2.1" {
			t.Errorf("at %q", got)
		}
		n.move("192.0.2.77")
		n.manager.Refresh()
		n.settle()
		if st := n.statusOf("p"); st.PodIP != "192.0.2.77" || st.HostIP != "192.0.2.77" {
			t.Errorf("pod at %q on a host at %q", st.PodIP, st.HostIP)
		}
	})
}

// TestPostStart checks that a container with a postStart hook is not started, and the one after it has to wait, before that is
// done.
func TestPostStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.fake.OnExec = func(cruntime.Container, cruntime.ExecSpec) (int, error) {
			time.Sleep(10 * time.Second)
			return 0, nil
		}
		n.apply(true, aPod("p", func(p *corev1.Pod) {
			c := &p.Spec.Containers[0]
			second := *c.DeepCopy()
			second.Name = "second"
			c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"set up"}}}}
			p.Spec.Containers = append(p.Spec.Containers, second)
		}))
		n.want("p", "Pending main#0 running second#0 ContainerCreating")
		if n.statusOf("p").ContainerStatuses[0].Ready {
			t.Error("ready before the hook is done")
		}
		time.Sleep(11 * time.Second)
		n.settle()
		n.want("p", "Running main#0 running second#0 running")
		if !n.statusOf("p").ContainerStatuses[0].Ready {
			t.Error("not ready after the hook")
		}
	})
}

// TestHTTPHook checks that a hook is asked of the pod itself, by whatever certificate it has, as a probe is.
func TestHTTPHook(t *testing.T) {
	asked := make(chan string, 1)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked <- r.Header.Get("X") + r.URL.String() }))
	defer srv.Close()
	addr := srv.Listener.Addr().(*net.TCPAddr)
	runHook(t, corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: addr.IP.String(), Port: intstr.FromInt(addr.Port), Scheme: corev1.URISchemeHTTPS,
		Path: "/up?a=b", HTTPHeaders: []corev1.HTTPHeader{{Name: "X", Value: "y"}}}}, func(wire.Object) error { return nil })
	select {
	case got := <-asked:
		if got != "y/up?a=b" {
			t.Errorf("asked %q", got)
		}
	case <-time.After(time.Minute):
		t.Error("not asked")
	}
}

// TestPlainHTTPHook checks that where HTTPS was said and plain HTTP is spoken, the hook is asked so, without the Authorization
// that was meant for a connection which nobody can read, and an event says it.
func TestPlainHTTPHook(t *testing.T) {
	asked := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("X") + r.Header.Get("Authorization")
	}))
	defer srv.Close()
	fallback := make(chan string, 1)
	addr := srv.Listener.Addr().(*net.TCPAddr)
	hook := corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: addr.IP.String(), Port: intstr.FromInt(addr.Port), Scheme: corev1.URISchemeHTTPS,
		Path: "/up?a=b", HTTPHeaders: []corev1.HTTPHeader{{Name: "X", Value: "y"}, {Name: "Authorization", Value: "secret"}}}}
	runHook(t, hook, func(o wire.Object) error {
		var e corev1.Event
		if o.Kind == wire.KindEvent && json.Unmarshal(o.Data, &e) == nil && e.Reason == "LifecycleHTTPFallback" {
			fallback <- e.Message
		}
		return nil
	})
	for what, c := range map[string]struct {
		got  chan string
		want string
	}{"the headers": {asked, "y"}, "the event": {fallback, "request to HTTPS lifecycle hook /up?a=b got HTTP response, retry with HTTP succeeded"}} {
		select {
		case got := <-c.got:
			if got != c.want {
				t.Errorf("%s: %q, want %q", what, got, c.want)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: nothing comes", what)
		}
	}
}

// runHook runs a pod with a postStart hook until the test ends.
func runHook(t *testing.T, hook corev1.LifecycleHandler, report func(wire.Object) error) {
	fake := fakeIn(t, "app:1")
	dir := t.TempDir()
	manager := podrun.NewManager(podrun.Config{Runtime: fake, Network: fakeNet{}, Volumes: &volume.Mounter{Dir: dir}, Dir: dir, NodeName: "edge",
		NodeIPs: func() []string { return nil }, Report: report, Forget: func(wire.ID) error { return nil }, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- manager.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	data, err := json.Marshal(aPod("p", func(p *corev1.Pod) { p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &hook} }))
	if err != nil {
		t.Fatal(err)
	}
	manager.Apply(desired.Decode([]wire.Object{{ID: wire.ID{Kind: wire.KindPod, UID: "p"}, Version: 1, Namespace: "default", Name: "p", Data: data}}, nil, slog.New(slog.DiscardHandler)), true)
}

// TestHostsFile checks that the first line of a pod's hosts file names its manager, by which the conformance suite knows it.
func TestHostsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.apply(true, aPod("own"), aPod("host", func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
		for pod, want := range map[string]string{"own": "# Kubernetes-managed hosts file.", "host": "# Kubernetes-managed hosts file (host network)."} {
			b, err := os.ReadFile(filepath.Join(n.fake.Files(pod), "hosts"))
			if got, _, _ := strings.Cut(string(b), "\n"); err != nil || got != want {
				t.Errorf("%s: %q, %v", pod, got, err)
			}
		}
	})
}

// TestStuckPod checks that a pod that cannot be cleaned up is tried less and less often, whatever else wakes it, until it
// works.
func TestStuckPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		var stuck atomic.Bool
		stuck.Store(true)
		n.fake.RemoveSandboxError = func() error {
			if stuck.Load() {
				return errors.New("device or resource busy")
			}
			return nil
		}
		n.apply(true, aPod("p"))
		n.apply(true, deleted(aPod("p"), 1))
		for range 600 { // ten minutes in which others start and end
			time.Sleep(time.Second)
			n.manager.Refresh()
		}
		n.settle()
		if got := n.fake.Count("RemoveSandbox"); got > 40 || got < 20 {
			t.Errorf("tried %d times in ten minutes, want about every 30 s at last", got)
		}
		stuck.Store(false)
		time.Sleep(31 * time.Second)
		n.settle()
		if !n.isGone("p") {
			t.Errorf("not gone: %s", n.line("p"))
		}
	})
}

// TestRegistryAway checks that many pods whose images are here do not wait for a silent registry one after the other.
func TestRegistryAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.fake.PullWait = func(context.Context, string) { time.Sleep(10 * time.Second) }
		n.fake.PullError = func(string) error { return cruntime.ErrUnreachable }
		var pods []any
		for i := range 12 {
			pods = append(pods, aPod(fmt.Sprint("p", i), func(p *corev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = corev1.PullAlways }))
		}
		n.apply(true, pods...)
		time.Sleep(10 * time.Second)
		n.settle()
		for i := range pods {
			n.want(fmt.Sprint("p", i), "Running main#0 running")
		}
		asked := n.fake.Count("Pull")
		time.Sleep(time.Minute)
		n.fake.Exit("p0", "main", 1)
		time.Sleep(11 * time.Second)
		n.settle()
		if n.fake.Count("Pull") != asked+1 {
			t.Errorf("the registry was asked %d times later, want once", n.fake.Count("Pull")-asked)
		}
	})
}

// TestPresentDoesNotQueue checks that pods whose images are here do not wait behind those whose images are not, when no
// registry answers.
func TestPresentDoesNotQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.fake.PullWait = func(ctx context.Context, ref string) {
			wait := 5 * time.Second
			if strings.HasPrefix(ref, "away.test/") {
				wait = time.Minute
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
		n.fake.PullError = func(string) error { return cruntime.ErrUnreachable }
		var pods []any
		for i := range 6 {
			pods = append(pods, aPod(fmt.Sprint("absent", i), func(p *corev1.Pod) { p.Spec.Containers[0].Image = fmt.Sprintf("away.test/app%d:1", i) }))
		}
		n.apply(true, pods...)
		time.Sleep(time.Second)
		present := aPod("present", func(p *corev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = corev1.PullAlways })
		n.apply(true, append(pods, present)...)
		time.Sleep(6 * time.Second)
		n.settle()
		n.want("present", "Running main#0 running")
	})
}
