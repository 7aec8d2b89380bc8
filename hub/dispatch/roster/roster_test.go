package roster

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// TestRoster checks that a device is known while a Node has its key, and loses the Node when that goes, is another one of the
// same name, or gets another key.
func TestRoster(t *testing.T) {
	node := func(name, uid, key string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid)}}
		if key != "" {
			n.Annotations = map[string]string{kube.NodeKeyAnnotation: key}
		}
		return n
	}
	type change struct {
		old, new *corev1.Node
		lost     string            // key of the device that has lost its Node
		known    map[string]string // name by key, after it
	}
	for what, changes := range map[string][]change{
		"a Node without a key comes and gets one": {
			{nil, node("a", "1", ""), "", map[string]string{}},
			{node("a", "1", ""), node("a", "1", "k1"), "", map[string]string{"k1": "a"}},
			{node("a", "1", "k1"), node("a", "1", "k1"), "", map[string]string{"k1": "a"}},
			{node("a", "1", "k1"), nil, "k1", map[string]string{}},
		},
		"another device takes its place": {
			{nil, node("a", "1", "k1"), "", map[string]string{"k1": "a"}},
			{node("a", "1", "k1"), node("a", "1", "k2"), "k1", map[string]string{"k2": "a"}},
		},
		"it is made anew": {
			{nil, node("a", "1", "k1"), "", map[string]string{"k1": "a"}},
			{node("a", "1", "k1"), node("a", "2", "k1"), "k1", map[string]string{"k1": "a"}},
		},
		"two Nodes name one device: the last counts": {
			{nil, node("a", "1", "k1"), "", map[string]string{"k1": "a"}},
			{nil, node("b", "2", "k1"), "", map[string]string{"k1": "b"}},
			{node("a", "1", "k1"), nil, "k1", map[string]string{"k1": "b"}},
			{node("b", "2", "k1"), nil, "k1", map[string]string{}},
		},
	} {
		t.Run(what, func(t *testing.T) {
			var r Roster
			for k, c := range changes {
				device, lost := r.Change(c.old, c.new)
				if lost != (c.lost != "") || lost && device != wire.NodeID(c.lost) {
					t.Errorf("change %d: %s lost its Node: %v, want %q", k, device, lost, c.lost)
				}
				for _, key := range []string{"k1", "k2"} {
					if r.names[key] != c.known[key] || r.Has(wire.NodeID(key)) != (c.known[key] != "") {
						t.Errorf("change %d: %s is known as %q, %v; want %q", k, key, r.names[key], r.Has(wire.NodeID(key)), c.known[key])
					}
				}
			}
		})
	}
}

// TestAbsent checks that people see since when a node is not connected, by what is known of that.
func TestAbsent(t *testing.T) {
	now := time.Date(2026, 11, 29, 9, 5, 7, 0, time.UTC)
	dark := func(s corev1.ConditionStatus) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pi"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: kube.DarkCondition, Status: s, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}}}}
	}
	for _, c := range []struct {
		node *corev1.Node
		last time.Time
		want string
	}{
		{dark(corev1.ConditionTrue), now.Add(-312 * time.Second), "it was last heard of at 2026-11-29T08:59:55Z, 5m12s ago."},
		{dark(corev1.ConditionTrue), time.Time{}, "it was last heard of before 2026-11-29T08:05:07Z."},
		{dark(corev1.ConditionFalse), time.Time{}, "it has not been heard of since this hub started."},
	} {
		err := Absent(c.node, c.last, now)
		if !apierrors.IsServiceUnavailable(err) || !strings.HasPrefix(err.Error(), "node pi is not connected: "+c.want+" Its pods go on running there") {
			t.Errorf("%v; it should say %s", err, c.want)
		}
	}
}
