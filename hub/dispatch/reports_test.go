package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/dispatch/kubelet"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// reporters is two nodes with a pod each, and the intake of what they report. It runs in a synctest bubble.
type reporters struct {
	t      *testing.T
	client *controltest.Client
	in     *intake
}

func newReporters(t *testing.T) *reporters {
	nodeOf := func(name, cidr, ip string) *corev1.Node {
		return &corev1.Node{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:   corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}}},
		}
	}
	podOf := func(name, node string) *corev1.Pod {
		return &corev1.Pod{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
			Spec:       corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{QOSClass: corev1.PodQOSBurstable},
		}
	}
	r := &reporters{t: t, client: controltest.New(t,
		nodeOf("evil", "10.42.1.0/24", "192.168.7.1"), nodeOf("good", "10.42.2.0/24", "192.168.7.2"), podOf("bad", "evil"), podOf("fine", "good"),
	)}
	r.in = newIntake(r.client, wire.Settings{PodCIDR: "10.42.0.0/16", ServiceCIDR: "10.43.0.0/16"}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() { _ = r.in.run(ctx) }()
	return r
}

// say reports puts as one batch; the result is set once it is answered.
func (r *reporters) say(node string, puts ...wire.Put) *bool {
	done := new(bool)
	r.in.add(job{device: "device of " + node, node: node, batch: &wire.Batch{Puts: puts}, done: func() { *done = true }})
	return done
}

func (r *reporters) put(kind wire.Kind, uid, name string, v any) wire.Put {
	b, err := json.Marshal(v)
	if err != nil {
		r.t.Fatal(err)
	}
	return wire.Put{Object: wire.Object{ID: wire.ID{Kind: kind, UID: uid}, Namespace: "default", Name: name, Data: b}}
}

func (r *reporters) podStatus(name string, st corev1.PodStatus) wire.Put {
	b, err := json.Marshal(st)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.put(wire.KindPodStatus, "uid-"+name, name, wire.PodReport{Namespace: "default", Name: name, Status: b})
}

func (r *reporters) event(name, pod string) wire.Put {
	return r.put(wire.KindEvent, name, name, corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"l": "x"}, Finalizers: []string{"x/y"}},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: pod, UID: types.UID("uid-" + pod)},
		Reason:         "Started", Source: corev1.EventSource{Component: "petrel-scheduler", Host: "good"},
	})
}

func (r *reporters) pod(name string) *corev1.Pod {
	o, _ := r.client.Get(kube.Pod, "default", name)
	return o.(*corev1.Pod)
}

func (r *reporters) refusals() (out []string) {
	for _, o := range r.client.Stored(kube.Event, "default") {
		if e := o.(*corev1.Event); e.Reason == "ReportRefused" {
			out = append(out, e.InvolvedObject.Name+": "+e.Message)
		}
	}
	return out
}

// What one node reports, however much and however ill, holds up no other's reports.
func TestOneNodeHoldsUpNoOther(t *testing.T) {
	for name, puts := range map[string]func(r *reporters, k int) wire.Put{
		"Events of one name": func(r *reporters, _ int) wire.Put { return r.event("same", "bad") },
		"what the API refuses": func(r *reporters, k int) wire.Put {
			return r.podStatus("bad", corev1.PodStatus{Reason: "refuse me", Message: fmt.Sprint(k)})
		},
		"what the store never takes": func(r *reporters, k int) wire.Put {
			return r.podStatus("bad", corev1.PodStatus{Reason: "break me", Message: fmt.Sprint(k)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReporters(t)
				var order []string            // of tries to write
				queued := make(chan struct{}) // closed when both nodes have reported
				r.client.Refuse = func(_ string, obj kube.Object, _ string) error {
					<-queued
					order = append(order, obj.GetName())
					if p, ok := obj.(*corev1.Pod); ok {
						switch p.Status.Reason {
						case "refuse me":
							return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, p.Name, errors.New("not so"))
						case "break me":
							return errors.New("no status")
						}
					}
					return nil
				}
				var batch []wire.Put
				for k := range 250 {
					batch = append(batch, puts(r, k))
				}
				evil := r.say("evil", batch...)
				good := r.say("good", r.podStatus("fine", corev1.PodStatus{Phase: corev1.PodRunning}))
				close(queued)
				time.Sleep(time.Second)
				synctest.Wait()
				if !*good || r.pod("fine").Status.Phase != corev1.PodRunning {
					t.Fatal("the other node's report is not stored within a second")
				}
				if k := slices.Index(order, "fine"); k > maxShare {
					t.Errorf("%d writes of the one node went before the report of the other", k)
				}
				// And its own end some day: what cannot be written is given up, not tried without end.
				time.Sleep(400 * time.Hour)
				synctest.Wait()
				if !*evil {
					t.Error("the batch is never answered")
				}
			})
		})
	}
}

// A store that takes nothing at all loses no report: each waits until it does.
func TestStoreThatTakesNothingLosesNoReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporters(t)
		full := true
		r.client.Refuse = func(string, kube.Object, string) error {
			if full {
				return apierrors.NewInternalError(errors.New("database or disk is full"))
			}
			return nil
		}
		a := r.say("evil", r.podStatus("bad", corev1.PodStatus{Phase: corev1.PodRunning}))
		b := r.say("good", r.podStatus("fine", corev1.PodStatus{Phase: corev1.PodRunning}))
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if *a || *b {
			t.Fatal("answered what is not stored")
		}
		full = false
		time.Sleep(time.Minute)
		synctest.Wait()
		if !*a || !*b || r.pod("bad").Status.Phase != corev1.PodRunning || r.pod("fine").Status.Phase != corev1.PodRunning {
			t.Error("not stored when the store took it again")
		}
	})
}

// TestReportsWaitForRoomInTheStore checks that a status that a full store does not take holds up none behind it, is not lost
// however long that lasts, and is written when the store has room; a newer one takes its place.
func TestReportsWaitForRoomInTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporters(t)
		full := true
		r.client.Refuse = func(_ string, obj kube.Object, _ string) error {
			if p, ok := obj.(*corev1.Pod); ok && full && len(p.Status.Message) > 4<<10 {
				return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: 507, Reason: "InsufficientStorage", Message: "full"}}
			}
			return nil
		}
		large := func(text string) corev1.PodStatus {
			return corev1.PodStatus{Phase: corev1.PodRunning, Message: text + strings.Repeat("x", 5<<10)}
		}
		said := r.say("evil", r.podStatus("bad", large("first")), r.event("e", "bad"))
		other := r.say("good", r.podStatus("fine", corev1.PodStatus{Phase: corev1.PodRunning}))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if !*said || !*other || len(r.client.Stored(kube.Event, "default")) == 0 {
			t.Fatal("what the store has no room for holds up what it takes")
		}
		for k := range 500 { // others are written meanwhile, and sessions end
			r.say("good", r.podStatus("fine", corev1.PodStatus{Phase: corev1.PodRunning, Reason: fmt.Sprint(k)}))
			r.in.drop("device of evil")
			time.Sleep(time.Minute)
		}
		said = r.say("evil", r.podStatus("bad", large("second")))
		time.Sleep(time.Hour)
		synctest.Wait()
		if !*said || r.pod("bad").Status.Message != "" {
			t.Fatalf("answered: %v; stored %.10q", *said, r.pod("bad").Status.Message)
		}
		full = false
		r.in.storeHasRoom()
		synctest.Wait()
		if got := r.pod("bad").Status.Message; !strings.HasPrefix(got, "second") {
			t.Errorf("stored when there is room: %.10q", got)
		}
		// Without a signal, as when a namespace has its share again.
		full = true
		r.say("evil", r.podStatus("bad", large("third")))
		time.Sleep(time.Hour)
		full = false
		time.Sleep(asideEvery + time.Second)
		synctest.Wait()
		if got := r.pod("bad").Status.Message; !strings.HasPrefix(got, "third") {
			t.Errorf("stored without a signal: %.10q", got)
		}
		if len(r.in.queues["device of evil"].aside) != 0 || r.in.asideBytes != 0 {
			t.Errorf("%d bytes are still set aside", r.in.asideBytes)
		}
	})
}

// A device that sends a batch, hangs up and comes again has one batch queued, and none once its session is over.
func TestOneBatchOfADeviceIsQueued(t *testing.T) {
	in := newIntake(controltest.New(t), wire.Settings{}, slog.New(slog.DiscardHandler))
	for range 1000 {
		in.add(job{device: "d", node: "n", batch: &wire.Batch{Puts: make([]wire.Put, 1000)}, done: func() {}})
	}
	if len(in.turn) != 1 || len(in.queues) != 1 {
		t.Errorf("%d batches of one device wait", len(in.turn))
	}
	in.drop("d")
	if len(in.turn) != 0 || in.queues["d"].job != nil {
		t.Error("the batch of a session that is over is kept")
	}
}

// A node's reports have a budget in number and in bytes.
func TestReportsHaveABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporters(t)
		written := 0
		r.client.Refuse = func(verb string, obj kube.Object, _ string) error {
			if obj.GetName() == "bad" {
				written++
			}
			return nil
		}
		var batch []wire.Put
		for k := range 5000 {
			batch = append(batch, r.podStatus("bad", corev1.PodStatus{Phase: corev1.PodRunning, Message: fmt.Sprint(k)}))
		}
		began := time.Now()
		done := r.say("evil", batch...)
		time.Sleep(10 * time.Second)
		if most := int(writeLimit.burst+10*writeLimit.rate) + 1; written > 2*most { // each may be tried in common and alone
			t.Errorf("%d writes in ten seconds, at most %d are allowed", written, most)
		}
		for !*done && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if d := time.Since(began); d < 40*time.Second || !*done {
			t.Errorf("5000 reports took %s, done %v", d, *done)
		}
		events := []wire.Put{}
		for k := range 1000 {
			events = append(events, r.event(fmt.Sprint("e", k), "bad"))
		}
		done = r.say("evil", events...)
		time.Sleep(time.Minute)
		synctest.Wait()
		// A node whose 110 pods start at once has five for each.
		if n := len(r.client.Stored(kube.Event, "default")); !*done || n < 110*5 || n > 700 {
			t.Errorf("1000 Events at once: done %v, %d stored", *done, n)
		}
	})
}

// A node reports its own: addresses in its range, Events about its pods, labels that are a node's to set. The rest of a
// report is taken, and the Node has an Event that names what was not.
func TestANodeSpeaksForItself(t *testing.T) {
	t.Run("addresses", func(t *testing.T) {
		for _, c := range []struct {
			ip   string
			host bool
			want string
		}{
			{"10.42.1.7", false, "10.42.1.7"},
			{"127.0.0.1", false, ""}, {"169.254.1.1", false, ""}, {"224.0.0.1", false, ""}, {"0.0.0.0", false, ""}, {"::1", false, ""},
			{"10.42.2.7", false, ""},   // another node's pod
			{"192.168.7.9", false, ""}, // anybody
			{"nonsense", false, ""},
			{"192.168.7.1", true, "192.168.7.1"},
			{"192.168.7.8", true, "192.168.7.8"}, // what addresses a node has only it can say
			{"192.168.7.2", true, ""},            // another node
			{"10.43.0.10", true, ""},             // a Service
			{"127.0.0.1", true, ""},
		} {
			synctest.Test(t, func(t *testing.T) {
				r := newReporters(t)
				p := r.pod("bad").DeepCopy()
				p.Spec.HostNetwork = c.host
				r.client.Put(p)
				done := r.say("evil", r.podStatus("bad", corev1.PodStatus{Phase: corev1.PodRunning, PodIP: c.ip, PodIPs: []corev1.PodIP{{IP: c.ip}}}))
				time.Sleep(time.Second)
				synctest.Wait()
				st := r.pod("bad").Status
				if !*done || st.Phase != corev1.PodRunning || st.PodIP != c.want || (len(st.PodIPs) == 1) != (c.want != "") {
					t.Errorf("%s, hostNetwork %v: %+v", c.ip, c.host, st)
				}
				if refused := r.refusals(); (len(refused) == 1) != (c.want == "") {
					t.Errorf("%s: %q", c.ip, refused)
				}
			})
		}
	})
	t.Run("Events", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newReporters(t)
			r.client.Put(&corev1.Event{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "of-good"},
				InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "fine", UID: "uid-fine"}, Message: "true",
				Source: corev1.EventSource{Component: "kubelet", Host: "good"},
			})
			elsewhere := r.put(wire.KindEvent, "n", "n", corev1.Event{
				ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "n"}, InvolvedObject: corev1.ObjectReference{Kind: "Node", Name: "evil"},
			})
			r.say("evil", r.event("of-good", "bad"), r.event("about-fine", "fine"), r.event("mine", "bad"), elsewhere)
			time.Sleep(time.Minute)
			synctest.Wait()
			got := map[string]*corev1.Event{}
			for _, o := range r.client.Stored(kube.Event, "") {
				e := o.(*corev1.Event)
				got[e.Namespace+"/"+e.Name] = e
			}
			if e := got["default/of-good"]; e.Message != "true" || e.InvolvedObject.Name != "fine" {
				t.Errorf("another node's Event was overwritten: %+v", e)
			}
			if got["default/about-fine"] != nil || got["kube-system/n"] != nil || got["default/n"] == nil {
				t.Errorf("an Event that is not the node's, or not in its namespace: %v", slices.Collect(mapKeys(got)))
			}
			if e := got["default/mine"]; e == nil || e.Source != (corev1.EventSource{Component: "kubelet", Host: "evil"}) || len(e.Labels)+len(e.Finalizers) > 0 {
				t.Errorf("its own: %+v", e)
			}
		})
	})
	t.Run("labels", func(t *testing.T) {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"team": "admins", "kubernetes.io/hostname": "n"}}}
		left := kubelet.MergeLabels(n, map[string]string{
			"kubernetes.io/arch": "arm64", "zone": "a", "petrel.dev/board": "pi", "team": "thieves", "kubernetes.io/hostname": "other",
			"topology.kubernetes.io/zone": "z", "node.kubernetes.io/x": "y", "node-role.kubernetes.io/control-plane": "",
			"node-restriction.kubernetes.io/x": "y", "team.node-restriction.kubernetes.io/x": "y", "x.k8s.io/y": "z", "bad key!": "x", "key": "bad value!",
		}, maxLeft)
		want := map[string]string{
			"kubernetes.io/arch": "arm64", "zone": "a", "petrel.dev/board": "pi", "team": "admins", "kubernetes.io/hostname": "n",
			"topology.kubernetes.io/zone": "z", "node.kubernetes.io/x": "y",
		}
		if d := cmp.Diff(want, n.Labels); d != "" {
			t.Error(d)
		}
		if len(left) != 6 || !strings.Contains(strings.Join(left, " "), "control-plane") {
			t.Errorf("left out: %q", left)
		}
		kubelet.MergeLabels(n, map[string]string{"zone": "b"}, maxLeft)
		if n.Labels["zone"] != "b" {
			t.Error("a node cannot change its own label")
		}
		n.Labels["zone"] = "by hand"
		kubelet.MergeLabels(n, map[string]string{"zone": "c"}, maxLeft)
		kubelet.MergeLabels(n, map[string]string{"zone": "d"}, maxLeft)
		if n.Labels["zone"] != "by hand" {
			t.Error("a label that an administrator has set was overwritten")
		}
	})
	t.Run("size", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newReporters(t)
			images := []corev1.ContainerImage{}
			for k := range 100 {
				images = append(images, corev1.ContainerImage{Names: []string{fmt.Sprint("i", k)}})
			}
			st, err := json.Marshal(corev1.NodeStatus{Images: images, Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}, {Type: corev1.NodeInternalIP, Address: "10.42.3.4"}, {Type: corev1.NodeInternalIP, Address: "192.168.7.1"}}})
			if err != nil {
				t.Fatal(err)
			}
			r.say("evil", r.put(wire.KindNodeStatus, "node", "evil", wire.NodeReport{Status: st}))
			time.Sleep(time.Second)
			r.say("evil", r.podStatus("bad", corev1.PodStatus{Message: strings.Repeat("x", 3<<20)}))
			time.Sleep(time.Minute)
			synctest.Wait()
			o, _ := r.client.Get(kube.Node, "", "evil")
			if n := o.(*corev1.Node).Status; len(n.Images) != maxNodeImages || len(n.Addresses) != 1 || n.Addresses[0].Address != "192.168.7.1" {
				t.Errorf("%d images, addresses %v", len(n.Images), n.Addresses)
			}
			if r.pod("bad").Status.Message != "" {
				t.Error("a status of 3 MiB was taken")
			}
		})
	})
}

// A status is not lost whole for one bad field: the hub takes what is right, and says what it refused.
func TestStatusIsNotLostForOneField(t *testing.T) {
	refuse := func(_ string, obj kube.Object, _ string) error {
		p, ok := obj.(*corev1.Pod)
		if !ok || p.Status.QOSClass == corev1.PodQOSBurstable {
			return nil
		}
		return apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, p.Name, field.ErrorList{
			field.Invalid(field.NewPath("status", "qosClass"), p.Status.QOSClass, "field is immutable")})
	}
	for name, data := range map[string]string{
		"a field that the API refuses":   `{"phase":"Running","message":"m","qosClass":"Guaranteed","podIP":"10.42.1.7","podIPs":[{"ip":"10.42.1.7"}]}`,
		"a field of another type":        `{"phase":"Running","message":"m","startTime":17,"podIP":"10.42.1.7","podIPs":[{"ip":"10.42.1.7"}]}`,
		"an address that is not its own": `{"phase":"Running","message":"m","podIP":"10.42.1.7","podIPs":[{"ip":"10.42.1.7"},{"ip":"127.0.0.1"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReporters(t)
				r.client.Refuse = refuse
				done := r.say("evil", r.put(wire.KindPodStatus, "uid-bad", "bad", wire.PodReport{Namespace: "default", Name: "bad", Status: []byte(data)}))
				time.Sleep(time.Minute)
				synctest.Wait()
				st := r.pod("bad").Status
				if !*done || st.Phase != corev1.PodRunning || st.Message != "m" || st.PodIP != "10.42.1.7" || st.QOSClass != corev1.PodQOSBurstable {
					t.Errorf("done %v, %+v", *done, st)
				}
				if got := r.refusals(); len(got) != 1 || !strings.Contains(got[0], "evil: the hub did not take") {
					t.Errorf("reported: %q", got)
				}
			})
		})
	}
}

// A panic over one node's report is that report's end, and nobody else's.
func TestPanicOverAReportIsThatNodes(t *testing.T) {
	for _, site := range []string{"dispatch/plan", "dispatch/intake"} {
		t.Run(site, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				remove := contain.Inject(func(s, key string) {
					if s == site && key == "evil" {
						panic("poison")
					}
				})
				defer remove()
				r := newReporters(t)
				evil := r.say("evil", r.podStatus("bad", corev1.PodStatus{Phase: corev1.PodRunning}))
				good := r.say("good", r.podStatus("fine", corev1.PodStatus{Phase: corev1.PodRunning}))
				time.Sleep(time.Minute)
				synctest.Wait()
				if !*good || r.pod("fine").Status.Phase != corev1.PodRunning {
					t.Error("the other node's report is not taken")
				}
				if !*evil {
					t.Error("the report is tried without end")
				}
			})
		})
	}
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
