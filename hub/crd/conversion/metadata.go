package conversion

import (
	"encoding/json"
	"errors"
	"fmt"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/weight"
	"petrel.dev/petrel/internal/kube"
)

// converted reads an object of a response, and refuses one that is not original in version to.
func converted(raw json.RawMessage, original *unstructured.Unstructured, to schema.GroupVersion) (*unstructured.Unstructured, error) {
	if err := weight.Check(raw, weight.Untyped()); err != nil {
		return nil, err
	}
	out := &unstructured.Unstructured{}
	if err := out.UnmarshalJSON(raw); err != nil {
		return nil, err
	}
	if got := out.GroupVersionKind().GroupVersion(); got != to {
		return nil, fmt.Errorf("invalid groupVersion (expected %v, received %v)", to, got)
	}
	for _, same := range []struct{ what, want, got string }{
		{"kind", original.GetKind(), out.GetKind()},
		{"name", original.GetName(), out.GetName()},
		{"namespace", original.GetNamespace(), out.GetNamespace()},
		{"UID", string(original.GetUID()), string(out.GetUID())},
	} {
		if same.want != same.got {
			return nil, fmt.Errorf("must have the same %s: %v != %v", same.what, same.want, same.got)
		}
	}
	return out, nil
}

// restoreMetadata gives out the metadata of original. A webhook may change labels and annotations, and nothing else.
func restoreMetadata(original, out *unstructured.Unstructured) error {
	answered, ok := out.Object["metadata"].(map[string]any)
	if !ok {
		return errors.New("missing metadata in converted object")
	}
	kept := map[string]any{}
	if m, ok := original.Object["metadata"].(map[string]any); ok {
		kept = runtime.DeepCopyJSON(m)
	}
	out.Object["metadata"] = kept
	for _, name := range []string{"labels", "annotations"} {
		value := answered[name]
		if value == nil {
			delete(kept, name)
			continue
		}
		entries, ok := value.(map[string]any)
		if !ok {
			return fmt.Errorf("invalid metadata.%s of type %T in converted object", name, value)
		}
		if err := checkEntries(name, entries); err != nil {
			return err
		}
		kept[name] = entries
	}
	return nil
}

// checkEntries refuses labels or annotations that no object may have.
func checkEntries(name string, entries map[string]any) error {
	texts := make(map[string]string, len(entries))
	for k, v := range entries {
		text, ok := v.(string)
		if !ok {
			return fmt.Errorf("metadata.%s[%s] must be a string, but is %T in converted object", name, k, v)
		}
		texts[k] = text
	}
	path := field.NewPath("metadata", name)
	if name == "labels" {
		return kube.First(metavalidation.ValidateLabels(texts, path)).ToAggregate()
	}
	return kube.First(apivalidation.ValidateAnnotations(texts, path)).ToAggregate()
}

// size returns the length of an object's JSON in bytes, as far as it can be had.
func size(obj *unstructured.Unstructured) int {
	b, err := json.Marshal(obj.Object)
	if err != nil {
		return 0
	}
	return len(b)
}
