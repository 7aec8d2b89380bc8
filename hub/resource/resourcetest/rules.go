// Package resourcetest takes objects through a kind's rules as the registry does. It is for tests.
package resourcetest

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Create takes the object through the rules of a creation and returns validation's messages.
func Create(k *resource.Kind, obj kube.Object) []string {
	ctx := context.Background()
	r := k.Rules
	r.Default(obj)
	if !k.Virtual() { // an answer is no object of its own
		obj.SetUID(types.UID("uid-" + obj.GetName()))
		obj.SetCreationTimestamp(metav1.Now().Rfc3339Copy())
	}
	obj, err := k.ToStored(ctx, obj)
	if err != nil {
		return []string{err.Error()}
	}
	if r.PrepareCreate != nil {
		r.PrepareCreate(ctx, obj)
	}
	var out []string
	if r.ValidateCreate == nil {
		return out
	}
	for _, e := range r.ValidateCreate(ctx, obj) {
		out = append(out, e.Error())
	}
	return out
}

// Update takes an object through the rules of an update, of the object or of a subresource, and returns validation's messages.
func Update(r *resource.Rules, obj, old kube.Object) []string {
	ctx := context.Background()
	r.Default(obj)
	if r.PrepareUpdate != nil {
		r.PrepareUpdate(ctx, obj, old)
	}
	obj.SetResourceVersion("2")
	shown := old.DeepCopyObject().(kube.Object)
	shown.SetResourceVersion("1")
	var out []string
	for _, e := range r.ValidateUpdate(ctx, obj, shown) {
		out = append(out, e.Error())
	}
	return out
}
