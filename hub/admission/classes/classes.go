// Package classes completes objects by the class that they name, or by the default class when they name none: pods by their
// RuntimeClass, claims by a StorageClass, Ingresses by an IngressClass. Refusals have upstream's texts.
package classes

import (
	"cmp"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Classes reads classes.
type Classes struct{ objects control.Reader }

// New returns the steps, which read classes from objects.
func New(objects control.Reader) *Classes { return &Classes{objects} }

// byDefault returns the class of the kind with the annotation "true" under one of the keys; nil: there is none. Of several it is the
// newest, and of several of one second the first by name.
func (c *Classes) byDefault(gvk kube.GVK, keys ...string) kube.Object {
	var best kube.Object
	for _, class := range c.objects.List(gvk, "") {
		marked := false
		for _, key := range keys {
			marked = marked || class.GetAnnotations()[key] == "true"
		}
		if marked && (best == nil || before(class, best)) {
			best = class
		}
	}
	return best
}

// before reports whether a is preferred to b as the default.
func before(a, b kube.Object) bool {
	return cmp.Or(b.GetCreationTimestamp().Compare(a.GetCreationTimestamp().Time), cmp.Compare(a.GetName(), b.GetName())) < 0
}
