package desired

import (
	"encoding/json"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// TestANewKindIsOneEntry syncs kinds that Petrel's nodes do not get, one for each way to say which nodes need an object, by
// nothing but an entry in the table.
func TestANewKindIsOneEntry(t *testing.T) {
	account := kube.GVK{Version: "v1", Kind: "ServiceAccount"}
	attachment := kube.GVK{Group: "storage.k8s.io", Version: "v1", Kind: "VolumeAttachment"}
	class := kube.GVK{Group: "storage.k8s.io", Version: "v1", Kind: "StorageClass"}
	w := newWorld(t, append(Table(),
		Source{Kind: "Account", GVK: account, Refs: podAccount, Compose: alone(accountObject)},
		Source{Kind: "Attachment", GVK: attachment, Node: attachedTo, Compose: alone(attachmentObject)},
		Source{Kind: "Class", GVK: class, All: true, Compose: alone(classObject)},
	))
	for _, gvk := range []kube.GVK{account, attachment, class} {
		if !slices.Contains(w.sets.Kinds(), gvk) {
			t.Errorf("%s is not followed", gvk.Kind)
		}
	}
	expect := func(what string, want ...string) {
		t.Helper()
		if got := w.drain(); !slices.Equal(got, want) {
			t.Errorf("%s: %q goes out, want %q", what, got, want)
		}
	}
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)}
	}
	w.command([]string{"open", "n1", "empty"})
	w.command([]string{"open", "n2", "empty"})

	data := &corev1.ServiceAccount{ObjectMeta: meta("data"), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "key"}}}
	w.change(account, "ns/data", data)
	expect("an account that no pod refers to")
	p := &corev1.Pod{ObjectMeta: meta("db"), Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "data"}}
	w.change(kube.Pod, "ns/db", p)
	expect("its pod", "put n1 Account/uid-data@1", "put n1 Pod/uid-db@1")
	again := data.DeepCopy()
	again.Annotations = map[string]string{"means": "nothing to a node"}
	w.change(account, "ns/data", again)
	expect("a change that its Compose leaves out", "put n1 Account/uid-data@1")
	w.change(kube.Pod, "ns/db", nil)
	expect("the pod goes", "remove n1 Account/uid-data", "remove n1 Pod/uid-db")

	a := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "uid-a"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "n2"}}
	w.change(attachment, "/a", a)
	expect("an attachment", "put n2 Attachment/uid-a@1")
	moved := a.DeepCopy()
	moved.Spec.NodeName = "n1"
	w.change(attachment, "/a", moved)
	expect("it moves", "put n1 Attachment/uid-a@1", "remove n2 Attachment/uid-a")
	w.command([]string{"close", "n1"})
	if got := w.command([]string{"open", "n1", "empty"}); !slices.Equal(got, []string{"put n1 Attachment/uid-a@1"}) {
		t.Errorf("a new session: %q goes out", got)
	}
	w.change(attachment, "/a", nil)
	expect("it goes", "remove n1 Attachment/uid-a")

	c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast", UID: "uid-fast"}, Provisioner: "example.com/fast"}
	w.change(class, "/fast", c)
	expect("a class", "share Class/uid-fast@1")
	w.change(class, "/fast", nil)
	expect("it goes", "unshare Class/uid-fast")
}

func podAccount(p *corev1.Pod) []types.NamespacedName {
	return []types.NamespacedName{{Namespace: p.Namespace, Name: p.Spec.ServiceAccountName}}
}

func accountObject(a *corev1.ServiceAccount) (*wire.Object, error) {
	return object("Account", a, a.ImagePullSecrets)
}

func attachedTo(o kube.Object) string { return o.(*storagev1.VolumeAttachment).Spec.NodeName }

func attachmentObject(a *storagev1.VolumeAttachment) (*wire.Object, error) {
	return object("Attachment", a, "attached")
}

func classObject(c *storagev1.StorageClass) (*wire.Object, error) {
	return object("Class", c, c.Provisioner)
}

// TestWhatCannotBeComposed checks that nodes keep what they have of it, and the caller gets the reason.
func TestWhatCannotBeComposed(t *testing.T) {
	table := Table()
	broken := false
	compose := table[0].Compose
	table[0].Compose = func(o kube.Object, parts []kube.Object) (*wire.Object, error) {
		if broken {
			return nil, &json.UnsupportedValueError{Str: "broken"}
		}
		return compose(o, parts)
	}
	w := newWorld(t, table)
	w.command([]string{"open", "n1", "empty"})
	w.command([]string{"pod", "web", "on=n1"})
	broken = true
	want := []string{"failed Pod ns/web: json: unsupported value: broken"}
	if got := w.command([]string{"pod", "web", "on=n1", "phase=Failed"}); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := w.command([]string{"delete", "pod", "web"}); !slices.Equal(got, []string{"remove n1 Pod/web"}) {
		t.Errorf("deleted: %q", got)
	}
}
