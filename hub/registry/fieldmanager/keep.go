package fieldmanager

import (
	"bytes"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/internal/kube"
)

// SameTimes gives entries of obj the times of those of old when they differ in nothing else, and returns a function that takes that
// back; nil: they differ in more, or not at all. A write that changes nothing but these times changes nothing.
func SameTimes(old, obj kube.Object) (undo func()) {
	if !Tracked(obj) || !Tracked(old) {
		return nil
	}
	now, was := obj.GetManagedFields(), old.GetManagedFields()
	if len(now) != len(was) {
		return nil
	}
	differ := false
	kept := make([]metav1.ManagedFieldsEntry, len(now))
	for i := range now {
		if !sameButTime(now[i], was[i]) {
			return nil
		}
		differ = differ || !now[i].Time.Equal(was[i].Time)
		kept[i] = now[i]
		kept[i].Time = was[i].Time
	}
	if !differ {
		return nil
	}
	obj.SetManagedFields(kept)
	return func() { obj.SetManagedFields(now) }
}

func sameButTime(a, b metav1.ManagedFieldsEntry) bool {
	return a.Manager == b.Manager && a.Operation == b.Operation && a.APIVersion == b.APIVersion && a.Subresource == b.Subresource &&
		a.FieldsType == b.FieldsType && bytes.Equal(raw(a.FieldsV1), raw(b.FieldsV1))
}

func raw(f *metav1.FieldsV1) []byte {
	if f == nil {
		return nil
	}
	return f.GetRawBytes()
}

// Guard remembers the managers of obj, nil for none, and returns a function that puts them back: if they are invalid by then, or, with
// always, whatever they are. What changes an object on its way into the store may not damage them.
func Guard(obj runtime.Object) (restore func(always bool) (invalid error)) {
	o, ok := obj.(kube.Object)
	if !ok || o == nil {
		return func(bool) error { return nil }
	}
	var had []metav1.ManagedFieldsEntry
	tracked := Tracked(o)
	if tracked {
		had = o.GetManagedFields()
	}
	return func(always bool) error {
		if !tracked && !Tracked(o) {
			return nil
		}
		var err error
		if !always {
			if err = checkEntries(o.GetManagedFields()); err == nil {
				return nil
			}
		}
		o.SetManagedFields(had)
		return err
	}
}
