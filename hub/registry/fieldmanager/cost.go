package fieldmanager

import (
	"bytes"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"petrel.dev/petrel/internal/kube"
)

// Upstream's merge keeps fields in sorted lists, into which each field is inserted, and compares the fields of every manager. Nothing
// stops it once it runs, so what would take seconds is refused before.
const (
	// smallObject is the size, in bytes of protobuf, up to which an object cannot be expensive, whatever is in it.
	smallObject = 64 << 10
	// maxFields bounds the fields and list entries of an object.
	maxFields = 20_000
	// maxCompared bounds the fields of an object times its managers.
	maxCompared = 4 << 20
	// maxDepth bounds how deep objects of a configuration are nested; each level repeats the path to it.
	maxDepth = 200
)

// affordable refuses objects with more fields, or more managers of them, than can be merged: a Status 413.
func affordable(objs ...kube.Object) error {
	fields, managers := 0, 0
	for _, obj := range objs {
		if small(obj) {
			continue
		}
		fields += countFields(obj)
		managers = max(managers, len(obj.GetManagedFields()))
	}
	return bounded(fields, managers)
}

func bounded(fields, managers int) error {
	switch {
	case fields > 2*maxFields: // of two states of one object
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
			"the managers of an object's fields are recorded for %d fields at most, and this one has about %d; create or replace it (POST, PUT) without managedFields", maxFields, fields/2))
	case fields*managers > maxCompared:
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
			"the object has %d managers of about %d fields, which are too many to compare; reset them with managedFields [{}]", managers, fields/2))
	}
	return nil
}

// checkEntries returns what is wrong with managers that a client or a webhook has sent; nil: nothing. To read the fields of an entry takes
// time with their square, so that entries with more fields than can be merged are not read.
func checkEntries(entries []metav1.ManagedFieldsEntry) error {
	n := 0
	for _, e := range entries {
		if n += 4 + bytes.Count(raw(e.FieldsV1), []byte(":")); n > 2*maxFields {
			return fmt.Errorf("managedFields: %d entries name more than %d fields", len(entries), 2*maxFields)
		}
	}
	return managedfields.ValidateManagedFields(entries)
}

// small reports whether the object's size alone shows that it is affordable.
func small(obj kube.Object) bool {
	sized, ok := obj.(interface{ Size() int })
	return ok && sized.Size() <= smallObject
}

// countFields returns the number of fields and list entries of an object, those that its managedFields name included.
func countFields(obj kube.Object) int {
	var content map[string]any
	if u, ok := obj.(*unstructured.Unstructured); ok {
		content = u.Object
	} else {
		var err error
		if content, err = runtime.DefaultUnstructuredConverter.ToUnstructured(obj); err != nil {
			return 0 // nor can it be merged
		}
	}
	n, _ := count(content, 0)
	return n
}

// count returns the number of fields and list entries of v, and how deep they are nested. It stops beyond maxDepth.
func count(v any, depth int) (fields, deepest int) {
	deepest = depth
	if depth > maxDepth {
		return 0, depth
	}
	within := func(child any) {
		n, d := count(child, depth+1)
		fields, deepest = fields+1+n, max(deepest, d)
	}
	switch v := v.(type) {
	case map[string]any:
		for _, child := range v {
			within(child)
		}
	case []any:
		for _, child := range v {
			within(child)
		}
	}
	return fields, deepest
}
