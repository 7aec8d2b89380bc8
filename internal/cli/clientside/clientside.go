// Package clientside applies objects as kubectl does without --server-side: the client finds the patch, by what it has applied last, which it
// keeps in an annotation of the object.
package clientside

import (
	"context"
	"encoding/json"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/dynamic"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
)

// Manager is the field manager of such an apply.
const Manager = "petrel-client-side-apply"

// lastApplied holds what was applied last, by this command or by kubectl: what was in it and is no longer in the manifest
// is removed from the object.
const lastApplied = corev1.LastAppliedConfigAnnotation

// Apply creates the object, one of objects and of that kind, or patches it by the difference of last-applied, manifest and live object.
// dry is none, client or server. The text says what was done.
func Apply(ctx context.Context, objects dynamic.ResourceInterface, kind schema.GroupVersionKind, obj *unstructured.Unstructured, dry string) (*unstructured.Unstructured, string, error) {
	modified, err := withLastApplied(obj)
	if err != nil {
		return nil, "", err
	}
	var dryRun []string
	if dry == "server" {
		dryRun = []string{metav1.DryRunAll}
	}
	if obj.GetName() == "" {
		return nil, "", errors.New("apply needs metadata.name; use create for generateName")
	}
	const tries = 5 // another client may write between our read and our patch
	for i := 0; ; i++ {
		live, err := objects.Get(ctx, obj.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			if dry == "client" {
				return obj, "created", nil
			}
			created := &unstructured.Unstructured{}
			if err := created.UnmarshalJSON(modified); err != nil {
				return nil, "", err
			}
			o, err := objects.Create(ctx, created, metav1.CreateOptions{DryRun: dryRun, FieldManager: Manager, FieldValidation: "Strict"})
			return o, "created", err
		}
		if err != nil {
			return nil, "", err
		}
		pt, patch, err := threeWay(kind, live, modified)
		if err != nil {
			return nil, "", err
		}
		if string(patch) == "{}" {
			return live, "unchanged", nil
		}
		if dry == "client" {
			return obj, "configured", nil
		}
		o, err := objects.Patch(ctx, obj.GetName(), pt, patch, metav1.PatchOptions{DryRun: dryRun, FieldManager: Manager, FieldValidation: "Strict"})
		if apierrors.IsConflict(err) && i < tries {
			continue
		}
		if err == nil && dry == "none" && o.GetResourceVersion() == live.GetResourceVersion() { // a dry run never has another version
			return o, "unchanged", nil
		}
		return o, "configured", err
	}
}

// withLastApplied returns the manifest with itself in the annotation.
func withLastApplied(obj *unstructured.Unstructured) ([]byte, error) {
	bare := obj.DeepCopy()
	ann := bare.GetAnnotations()
	delete(ann, lastApplied)
	if len(ann) == 0 {
		ann = map[string]string{}
	}
	bare.SetAnnotations(ann) // kubectl too writes an empty map
	b, err := json.Marshal(bare.Object)
	if err != nil {
		return nil, err
	}
	ann[lastApplied] = string(b) + "\n"
	bare.SetAnnotations(ann)
	return json.Marshal(bare.Object)
}

// threeWay computes the patch: strategic for kinds with a Go type, merge for others.
func threeWay(kind schema.GroupVersionKind, live *unstructured.Unstructured, modified []byte) (types.PatchType, []byte, error) {
	current, err := json.Marshal(live.Object)
	if err != nil {
		return "", nil, err
	}
	original := []byte(live.GetAnnotations()[lastApplied])
	typed, err := clientscheme.Scheme.New(kind)
	if runtime.IsNotRegisteredError(err) {
		patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch(original, modified, current)
		return types.MergePatchType, patch, err
	}
	if err != nil {
		return "", nil, err
	}
	schema, err := strategicpatch.NewPatchMetaFromStruct(typed)
	if err != nil {
		return "", nil, err
	}
	patch, err := strategicpatch.CreateThreeWayMergePatch(original, modified, current, schema, true)
	return types.StrategicMergePatchType, patch, err
}
