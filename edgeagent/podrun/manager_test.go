package podrun_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/podrun"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/svcproxy"
)

// node is a pod manager on a fake runtime, in a bubble where time passes at once.
type node struct {
	t       *testing.T
	fake    *runtimetest.Fake
	dir     string
	manager *podrun.Manager
	stop    func()
	// change, if set, makes another node of it than the usual one, from its next start on.
	change func(*podrun.Config)

	mu     sync.Mutex
	status map[string]corev1.PodStatus
	gone   map[string]bool
	forgot map[string]bool
	free   func() int64 // on the disk; nil: not known
	ip     string       // the node's
	sent   int
	events map[string]corev1.Event // latest by UID
}

type fakeNet struct{}

func (fakeNet) Attach(context.Context, string) (podrun.Attachment, error) {
	return podrun.Attachment{Netns: "/ns", IPs: []string{"10.42.0.9"}}, nil
}
func (fakeNet) Detach(context.Context, string) error { return nil }

// fakeIn is a fake runtime that keeps its files where the test's are.
func fakeIn(t *testing.T, images ...string) *runtimetest.Fake {
	return runtimetest.NewFake(t.TempDir(), images...)
}

func newNode(t *testing.T, change ...func(*podrun.Config)) *node {
	n := &node{t: t, fake: fakeIn(t, "app:1"), dir: t.TempDir(), status: map[string]corev1.PodStatus{}, gone: map[string]bool{},
		forgot: map[string]bool{}, ip: "192.0.2.1", events: map[string]corev1.Event{}}
	for _, f := range change {
		n.change = f
	}
	n.start()
	return n
}

// start is a new life of the agent.
func (n *node) start() {
	cfg := podrun.Config{Runtime: n.fake, Network: fakeNet{}, Volumes: &volume.Mounter{Dir: n.dir}, Dir: n.dir, NodeName: "edge",
		NodeIPs: n.addresses, DNS: podspec.DNS{Server: "10.43.0.10", Domain: "cluster.local"},
		Report: n.report, Forget: func(id wire.ID) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.forgot[id.UID] = true
			return nil
		}, Free: n.free, Log: slog.New(slog.DiscardHandler)}
	if n.change != nil {
		n.change(&cfg)
	}
	n.manager = podrun.NewManager(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { n.manager.Run(ctx); close(done) }()
	n.stop = func() { cancel(); <-done }
	synctest.Wait()
}

func (n *node) report(o wire.Object) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent++
	if o.Kind == wire.KindEvent {
		var e corev1.Event
		if err := json.Unmarshal(o.Data, &e); err != nil {
			return err
		}
		n.events[o.UID] = e
		return nil
	}
	var r wire.PodReport
	var st corev1.PodStatus
	if err := errors.Join(json.Unmarshal(o.Data, &r)); err != nil {
		return err
	}
	if err := json.Unmarshal(r.Status, &st); err != nil {
		return err
	}
	n.status[o.UID], n.gone[o.UID] = st, r.Gone
	return nil
}

// The manager's goroutines report while a test looks.

func (n *node) statusOf(uid string) corev1.PodStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status[uid]
}

func (n *node) isGone(uid string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gone[uid]
}

func (n *node) isForgotten(uid string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.forgot[uid]
}

func (n *node) reports() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent
}

func (n *node) addresses() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return []string{n.ip}
}

func (n *node) move(ip string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ip = ip
}

func (n *node) apply(complete bool, objects ...any) {
	n.t.Helper()
	var set []wire.Object
	for i, v := range objects {
		data, err := json.Marshal(v)
		if err != nil {
			n.t.Fatal(err)
		}
		o := wire.Object{Version: uint64(time.Now().UnixNano()) + uint64(i), Data: data}
		switch v := v.(type) {
		case *corev1.Pod:
			o.ID, o.Namespace, o.Name = wire.ID{Kind: wire.KindPod, UID: string(v.UID)}, v.Namespace, v.Name
		case *corev1.Node:
			o.ID, o.Name = wire.ID{Kind: wire.KindNode, UID: string(v.UID)}, v.Name
		case *corev1.ConfigMap:
			o.ID, o.Namespace, o.Name = wire.ID{Kind: wire.KindConfigMap, UID: string(v.UID)}, v.Namespace, v.Name
		case *corev1.Secret:
			o.ID, o.Namespace, o.Name = wire.ID{Kind: wire.KindSecret, UID: string(v.UID)}, v.Namespace, v.Name
		case *nodev1.RuntimeClass:
			o.ID, o.Name = wire.ID{Kind: wire.KindRuntimeClass, UID: string(v.UID)}, v.Name
		case *svcproxy.Service:
			o.ID, o.Namespace, o.Name = wire.ID{Kind: wire.KindService, UID: v.Name}, v.Namespace, v.Name
		}
		set = append(set, o)
	}
	n.manager.Apply(desired.Decode(set, nil, slog.New(slog.DiscardHandler)), complete)
	n.settle()
}

// settle lets everything happen that happens without time passing; file writes are not known to the bubble, timers of
// a few milliseconds are.
func (n *node) settle() {
	for range 20 {
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
	}
}

func (n *node) line(uid string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	st := n.status[uid]
	out := string(st.Phase)
	for _, c := range st.ContainerStatuses {
		switch {
		case c.State.Running != nil:
			out += fmt.Sprintf(" %s#%d running", c.Name, c.RestartCount)
		case c.State.Waiting != nil:
			out += fmt.Sprintf(" %s#%d %s", c.Name, c.RestartCount, c.State.Waiting.Reason)
		default:
			out += fmt.Sprintf(" %s#%d ended", c.Name, c.RestartCount)
		}
	}
	return out
}

func (n *node) want(uid, line string) {
	n.t.Helper()
	if got := n.line(uid); got != line {
		n.t.Errorf("pod %s is %q, want %q", uid, got, line)
	}
}

func (n *node) eventCount(reason string) (events, count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		if e.Reason == reason {
			events++
			count += int(e.Count)
		}
	}
	return events, count
}

func aPod(uid string, change ...func(*corev1.Pod)) *corev1.Pod {
	grace := int64(30)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: uid, Namespace: "default", UID: types.UID(uid)},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "main", Image: "app:1"}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func TestBackOffInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.apply(true, aPod("p"))
		n.want("p", "Running main#0 running")
		// The waits between the end of a container and the next start.
		for i, wait := range []time.Duration{0, 10, 20, 40, 80, 160, 300, 300} {
			if !n.fake.Exit("p", "main", 1) {
				t.Fatalf("attempt %d does not run", i)
			}
			if wait > 0 {
				time.Sleep(wait*time.Second - 200*time.Millisecond)
				n.settle()
				n.want("p", fmt.Sprintf("Running main#%d CrashLoopBackOff", i))
				time.Sleep(200 * time.Millisecond)
			}
			n.settle()
			n.want("p", fmt.Sprintf("Running main#%d running", i+1))
		}
		if events, count := n.eventCount("Started"); events != 1 || count != 9 {
			t.Errorf("%d Started events with a count of %d, want 1 with 9", events, count)
		}
		if events, count := n.eventCount("BackOff"); events != 1 || count != 7 {
			t.Errorf("%d BackOff events with a count of %d, want 1 with 7", events, count)
		}
	})
}

func TestIdleIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.apply(true, aPod("p"), aPod("q"))
		n.want("p", "Running main#0 running")
		calls, sent := n.fake.Calls(), n.reports()
		time.Sleep(24 * time.Hour)
		n.settle()
		if n.fake.Calls() != calls || n.reports() != sent {
			t.Errorf("in an idle day: %d calls of the runtime and %d reports", n.fake.Calls()-calls, n.reports()-sent)
		}
	})
}

func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.fake.Deaf["main"] = true
		p := aPod("p", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"bye"}}}}
		})
		var hooks atomic.Int32
		n.fake.OnExec = func(cruntime.Container, cruntime.ExecSpec) (int, error) {
			hooks.Add(1)
			time.Sleep(3 * time.Second)
			return 0, nil
		}
		n.apply(true, p)
		del := p.DeepCopy()
		del.DeletionTimestamp, del.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, new(int64)
		*del.DeletionGracePeriodSeconds = 10
		n.apply(true, del)
		time.Sleep(9 * time.Second)
		n.settle()
		n.want("p", "Running main#0 running")
		if hooks.Load() != 1 {
			t.Errorf("the preStop hook ran %d times", hooks.Load())
		}
		time.Sleep(2 * time.Second)
		n.settle()
		if !n.isGone("p") {
			t.Errorf("pod is not gone after its grace: %s", n.line("p"))
		}
		if _, err := os.Stat(filepath.Join(n.dir, "p")); err == nil {
			t.Error("its directory is left")
		}
		n.apply(true)
		if !n.isForgotten("p") || n.manager.Running() != 0 {
			t.Error("it is not forgotten once the set has dropped it")
		}
	})
}

func TestMissingConfigMapComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		ref := corev1.LocalObjectReference{Name: "cfg"}
		p := aPod("env", func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref}}}
		})
		q := aPod("vol", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref}}}}
		})
		n.apply(true, p, q)
		n.want("env", "Pending main#0 CreateContainerConfigError")
		n.want("vol", "Pending main#0 ContainerCreating")
		if events, _ := n.eventCount("FailedMount"); events != 1 {
			t.Errorf("%d FailedMount events", events)
		}
		n.apply(true, p, q, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cfg", Namespace: "default", UID: "c"}, Data: map[string]string{"A": "1"}})
		n.want("env", "Running main#0 running")
		n.want("vol", "Running main#0 running")
	})
}

func TestPullPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		var away atomic.Bool
		away.Store(true)
		n.fake.PullError = func(string) error {
			if away.Load() {
				return fmt.Errorf("%w: no route", cruntime.ErrUnreachable)
			}
			return nil
		}
		image := func(name string, policy corev1.PullPolicy) func(*corev1.Pod) {
			return func(p *corev1.Pod) { p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = name, policy }
		}
		n.apply(true, aPod("here", image("app:1", corev1.PullAlways)), aPod("away", image("other:1", "")), aPod("never", image("third:1", corev1.PullNever)))
		n.want("here", "Running main#0 running")
		n.want("away", "Pending main#0 ErrImagePull")
		n.want("never", "Pending main#0 ErrImageNeverPull")
		time.Sleep(11 * time.Second)
		n.settle()
		n.want("away", "Pending main#0 ImagePullBackOff")
		away.Store(false)
		time.Sleep(20 * time.Second)
		n.settle()
		n.want("away", "Running main#0 running")
		if e, _ := n.eventCount("RegistryUnreachable"); e != 1 {
			t.Errorf("%d events tell that an image was used without its registry", e)
		}
	})
}

func TestWhatTheSetDoesNotName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.apply(true, aPod("p"), aPod("q"))
		n.want("p", "Running main#0 running")
		n.stop()
		n.start()
		defer func() { n.stop() }()
		// A damaged cache: nothing is known to be wanted, and nobody has said that nothing is. The pods go on.
		n.apply(false)
		n.fake.Exit("p", "main", 1)
		n.settle()
		n.want("p", "Running main#1 running")
		// The hub has spoken: q is wanted, p is not.
		n.apply(true, aPod("q"))
		if _, err := os.Stat(filepath.Join(n.dir, "p")); err == nil {
			t.Error("p is left")
		}
		n.want("q", "Running main#0 running")
		// A pod that leaves the set later goes, whatever else.
		n.apply(false)
		if n.manager.Running() != 0 {
			t.Error("q is left")
		}
	})
}

func TestProbesDecide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		answers := map[string]int{"ready": 1, "alive": 0, "up": 1}
		var mu sync.Mutex
		n.fake.OnExec = func(_ cruntime.Container, s cruntime.ExecSpec) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return answers[s.Command[0]], nil
		}
		set := func(name string, code int) {
			mu.Lock()
			answers[name] = code
			mu.Unlock()
		}
		probe := func(cmd string) *corev1.Probe {
			return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{cmd}}}, PeriodSeconds: 5, FailureThreshold: 3, SuccessThreshold: 1, TimeoutSeconds: 1}
		}
		n.apply(true, aPod("p", func(p *corev1.Pod) {
			c := &p.Spec.Containers[0]
			c.ReadinessProbe, c.LivenessProbe, c.StartupProbe = probe("ready"), probe("alive"), probe("up")
		}))
		is := func(ready, started bool) {
			t.Helper()
			n.settle()
			c := n.statusOf("p").ContainerStatuses[0]
			if c.Ready != ready || *c.Started != started {
				t.Errorf("ready %v started %v, want %v %v", c.Ready, *c.Started, ready, started)
			}
		}
		is(false, false)
		set("up", 0)
		time.Sleep(5 * time.Second)
		is(false, true)
		set("ready", 0)
		time.Sleep(5 * time.Second)
		is(true, true)
		set("ready", 1)
		time.Sleep(10 * time.Second) // two failures are not enough
		is(true, true)
		time.Sleep(5 * time.Second)
		is(false, true)
		set("alive", 1)
		time.Sleep(15 * time.Second)
		n.settle()
		if got := n.line("p"); !strings.HasPrefix(got, "Running main#1") {
			t.Errorf("after three failed liveness probes: %s", got)
		}
	})
}

// TestOthersNewsIsNoNews checks that a set that changes elsewhere costs a pod nothing.
func TestOthersNewsIsNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		log := slog.New(slog.DiscardHandler)
		p := aPod("p")
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		objects := []wire.Object{{ID: wire.ID{Kind: wire.KindPod, UID: "p"}, Version: 1, Namespace: "default", Name: "p", Data: data}}
		set := desired.Decode(objects, nil, log)
		n.manager.Apply(set, true)
		n.settle()
		n.want("p", "Running main#0 running")
		calls := n.fake.Calls()
		for i := range 100 {
			svc := wire.Object{ID: wire.ID{Kind: wire.KindService, UID: "s"}, Version: uint64(i), Data: []byte(`{"ns":"default","name":"s"}`)}
			set = desired.Decode(append(objects[:1:1], svc), set, log)
			n.manager.Apply(set, true)
			n.settle()
		}
		if got := n.fake.Calls(); got != calls {
			t.Errorf("%d calls of the runtime for a hundred changes of a Service", got-calls)
		}
	})
}
