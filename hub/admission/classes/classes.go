// Package classes completes objects by the class that they name, or by the default class when they name none: pods by their
// RuntimeClass, claims by a StorageClass, Ingresses by an IngressClass. Refusals have upstream's texts.
package classes

import (
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Classes reads classes.
type Classes struct{ objects control.Reader }

// New returns the steps, which read classes from objects.
func New(objects control.Reader) *Classes { return &Classes{objects} }

// byDefault returns the class of the kind that is marked as the default; nil: there is none.
func (c *Classes) byDefault(gvk kube.GVK, keys ...string) kube.Object {
	return kube.DefaultClass(c.objects.List(gvk, ""), keys...)
}
