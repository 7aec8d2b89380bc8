package desired

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
	"petrel.dev/petrel/internal/scripttest"
	"petrel.dev/petrel/internal/wire"
)

// Timelines as text (testdata/*.txt): changes, and what goes out; of each command by node and object, and of one object in
// order. A version is a number by the content of an object: @1 is the first, @2 the next other one. Commands:
//
//	pod NAME KEY=VALUE...        keys: on, uid, configmap, secret, phase, status, gate (the status of its readiness gate's condition)
//	node NAME KEY=VALUE...       keys: uid, cidr, ip
//	configmap|secret NAME KEY=VALUE...  keys: uid, data
//	service NAME KEY=VALUE...    keys: uid, ip
//	claim NAME KEY=VALUE...      keys: uid, volume, phase, note
//	volume NAME KEY=VALUE...     keys: uid, node, for (UID of a claim), deleted, phase
//	slice NAME KEY=VALUE...      keys: of, ip
//	delete KIND NAME             of the above
//	misses POD..., has POD...    tokens of pods are still to be made; are there
//	open NODE [empty]            a session begins
//	known NODE                   the node has exactly its set
//	have NODE KIND/UID...        the node has these
//	close NODE
//	release|cancel NODE POD
//	pass DURATION                and then what has expired is sent
func TestScripts(t *testing.T) {
	scripttest.Run(t, func(t *testing.T) func([]string) []string { return newWorld(t, Table()).command })
}

// world is an API and the sets that follow it.
type world struct {
	t        fataler
	now      time.Time
	sets     *Sets
	objects  map[kube.GVK]map[string]kube.Object // by namespace/name
	misses   map[string]bool                     // pods that wait, by name
	versions map[wire.ID][]uint64

	// What senders would have by now: nodes with a session, and what is shared.
	nodes  map[string]map[wire.ID]uint64
	common map[wire.ID]uint64
}

// fataler is what tests of all sorts have in common.
type fataler interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newWorld(t fataler, table []Source) *world {
	w := &world{t: t, nodes: map[string]map[wire.ID]uint64{}, common: map[wire.ID]uint64{}, now: time.Unix(1e9, 0), objects: map[kube.GVK]map[string]kube.Object{}, misses: map[string]bool{}, versions: map[wire.ID][]uint64{}}
	w.sets = New(Config{Sources: table, Reader: w, Waits: func(_ string, p *corev1.Pod) bool { return w.misses[p.Name] }})
	return w
}

func (w *world) Get(gvk kube.GVK, namespace, name string) (kube.Object, bool) {
	o, ok := w.objects[gvk][namespace+"/"+name]
	return o, ok
}

// change stores an object, nil: deletes it, and lets the sets follow.
func (w *world) change(gvk kube.GVK, key string, o kube.Object) {
	w.t.Helper()
	if !slices.Contains(w.sets.Kinds(), gvk) {
		w.t.Fatalf("nobody follows %s", gvk.Kind)
	}
	c := control.Change{GVK: gvk, New: o}
	if old, ok := w.objects[gvk][key]; ok {
		c.Old = old
	}
	if w.objects[gvk] == nil {
		w.objects[gvk] = map[string]kube.Object{}
	}
	if w.objects[gvk][key] = o; o == nil {
		delete(w.objects[gvk], key)
	}
	w.sets.Change(w.now, c)
	for _, k := range w.sets.Stale() {
		w.sets.Share(k)
	}
}

func (w *world) command(f []string) []string {
	w.t.Helper()
	arg := map[string]string{}
	for _, a := range f[1:] {
		k, v, _ := strings.Cut(a, "=")
		arg[k] = v
	}
	meta := func() metav1.ObjectMeta {
		m := metav1.ObjectMeta{Namespace: "ns", Name: f[1], UID: types.UID(f[1])}
		if arg["uid"] != "" {
			m.UID = types.UID(arg["uid"])
		}
		return m
	}
	switch f[0] {
	case "pod":
		w.change(kube.Pod, "ns/"+f[1], scriptPod(meta(), arg))
	case "node":
		m := meta()
		m.Namespace = ""
		n := &corev1.Node{ObjectMeta: m, Spec: corev1.NodeSpec{PodCIDR: arg["cidr"]}}
		if arg["ip"] != "" {
			n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: arg["ip"]}}
		}
		w.change(kube.Node, "/"+f[1], n)
	case "configmap":
		w.change(kube.ConfigMap, "ns/"+f[1], &corev1.ConfigMap{ObjectMeta: meta(), Data: map[string]string{"k": arg["data"]}})
	case "secret":
		w.change(kube.Secret, "ns/"+f[1], &corev1.Secret{ObjectMeta: meta(), Data: map[string][]byte{"k": []byte(arg["data"])}})
	case "service":
		w.change(kube.Service, "ns/"+f[1], &corev1.Service{ObjectMeta: meta(), Spec: corev1.ServiceSpec{ClusterIP: arg["ip"]}})
	case "claim":
		c := &corev1.PersistentVolumeClaim{ObjectMeta: meta(), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: arg["volume"]},
			Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.PersistentVolumeClaimPhase(arg["phase"])}}
		c.Annotations = map[string]string{"note": arg["note"]}
		if arg["volume"] != "" {
			c.Annotations[kube.BindCompleted] = "yes"
		}
		w.change(kube.PersistentVolumeClaim, "ns/"+f[1], c)
	case "volume":
		w.change(kube.PersistentVolume, "/"+f[1], scriptVolume(meta(), arg))
	case "slice":
		m := meta()
		m.Labels = map[string]string{discoveryv1.LabelServiceName: arg["of"]}
		w.change(kube.EndpointSlice, "ns/"+f[1], &discoveryv1.EndpointSlice{ObjectMeta: m, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{arg["ip"]}}}})
	case "delete":
		gvk, namespace := map[string]kube.GVK{"pod": kube.Pod, "node": kube.Node, "configmap": kube.ConfigMap, "secret": kube.Secret,
			"service": kube.Service, "slice": kube.EndpointSlice, "claim": kube.PersistentVolumeClaim, "volume": kube.PersistentVolume}[f[1]], "ns"
		if f[1] == "node" || f[1] == "volume" {
			namespace = ""
		}
		w.change(gvk, namespace+"/"+f[2], nil)
	default:
		w.session(f)
	}
	return w.drain()
}

// session are the commands about nodes.
func (w *world) session(f []string) {
	w.t.Helper()
	switch f[0] {
	case "misses", "has":
		for _, name := range f[1:] {
			w.misses[name] = f[0] == "misses"
		}
	case "open":
		w.nodes[f[1]] = map[wire.ID]uint64{}
		w.sets.Open(w.now, f[1], len(f) > 2)
	case "known":
		w.sets.Known(f[1])
	case "have":
		var entries []wire.Entry
		for _, a := range f[2:] {
			kind, uid, _ := strings.Cut(a, "/")
			entries = append(entries, wire.Entry{ID: wire.ID{Kind: wire.Kind(kind), UID: uid}})
		}
		w.sets.Have(w.now, f[1], entries)
	case "close":
		delete(w.nodes, f[1])
		w.sets.Close(f[1])
	case "release":
		w.sets.Release(w.now, f[1], types.UID(f[2]))
	case "cancel":
		w.sets.Cancel(w.now, f[1], types.UID(f[2]))
	case "pass":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(d)
		for node := range w.sets.open {
			w.sets.Expire(w.now, node)
		}
	default:
		w.t.Fatalf("no command %q", f[0])
	}
}

func scriptPod(m metav1.ObjectMeta, arg map[string]string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: m, Spec: corev1.PodSpec{NodeName: arg["on"]},
		Status: corev1.PodStatus{Phase: corev1.PodPhase(arg["phase"]), Message: arg["status"]}}
	for name := range strings.SplitSeq(arg["configmap"], ",") {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}})
	}
	if status, ok := arg["gate"]; ok {
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/lb"}}
		p.Status.Conditions = []corev1.PodCondition{{Type: "example.com/lb", Status: corev1.ConditionStatus(status), Message: arg["status"]},
			{Type: corev1.PodReady, Status: corev1.ConditionStatus(arg["ready"])}}
	}
	if name := arg["claim"]; name != "" {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
	}
	for name := range strings.SplitSeq(arg["secret"], ",") {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}})
	}
	return p
}

// scriptVolume is a volume of the built-in provisioner.
func scriptVolume(m metav1.ObjectMeta, arg map[string]string) *corev1.PersistentVolume {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: types.UID(arg["for"])}}
	v := localpath.Volume(claim, &storagev1.StorageClass{}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: arg["node"]}})
	v.Name, v.UID = m.Name, m.UID
	v.Spec.ClaimRef = &corev1.ObjectReference{UID: claim.UID}
	v.Status.Phase = corev1.PersistentVolumePhase(arg["phase"])
	if arg["deleted"] != "" {
		v.DeletionTimestamp = &metav1.Time{}
	}
	return v
}

// drain is what has gone out, as text.
func (w *world) drain() (lines []string) {
	out := w.sets.Drain()
	slices.SortStableFunc(out.Ops, func(a, b Op) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(string(a.ID.Kind), string(b.ID.Kind)), strings.Compare(a.ID.UID, b.ID.UID))
	})
	for _, op := range out.Ops {
		w.send(op)
		line := strings.TrimSpace(fmt.Sprint(op.Verb, " ", op.Node))
		line += fmt.Sprintf(" %s/%s", op.ID.Kind, op.ID.UID)
		if op.Object != nil {
			if op.Object.ID != op.ID {
				w.t.Errorf("%v carries %v", op.ID, op.Object.ID)
			}
			line += fmt.Sprintf("@%d", w.version(op.Object))
		}
		lines = append(lines, line)
	}
	for _, f := range out.Failed {
		lines = append(lines, fmt.Sprintf("failed %s %s: %v", f.Kind, f.Name, f.Err))
	}
	if !out.Wake.IsZero() {
		lines = append(lines, fmt.Sprint("wake in ", out.Wake.Sub(w.now)))
	}
	return lines
}

// send does what a sender does. An op about nothing is an error: it would be traffic.
func (w *world) send(op Op) {
	set := w.common
	if op.Node != "" {
		if set = w.nodes[op.Node]; set == nil {
			w.t.Errorf("%v of a node without a session", op)
			return
		}
	}
	_, has := set[op.ID]
	switch op.Verb {
	case Put, Share:
		set[op.ID] = op.Object.Version
	case Remove, Unshare:
		if !has {
			w.t.Errorf("%s %v, which is not there", op.Verb, op.ID)
		}
		delete(set, op.ID)
	}
}

func (w *world) version(o *wire.Object) int {
	k := slices.Index(w.versions[o.ID], o.Version)
	if k < 0 {
		k = len(w.versions[o.ID])
		w.versions[o.ID] = append(w.versions[o.ID], o.Version)
	}
	return k + 1
}
