package kube

import "cmp"

// The annotations that mark the default StorageClass: today's, and the one before.
const (
	DefaultStorage     = "storageclass.kubernetes.io/is-default-class"
	BetaDefaultStorage = "storageclass.beta.kubernetes.io/is-default-class"
)

// DefaultClass returns the class with the annotation "true" under one of the keys; nil: there is none. Of several it is the newest,
// and of several of one second the first by name.
func DefaultClass(classes []Object, keys ...string) Object {
	var best Object
	for _, class := range classes {
		marked := false
		for _, key := range keys {
			marked = marked || class.GetAnnotations()[key] == "true"
		}
		if marked && (best == nil || preferred(class, best)) {
			best = class
		}
	}
	return best
}

// preferred reports whether a is preferred to b as the default.
func preferred(a, b Object) bool {
	return cmp.Or(b.GetCreationTimestamp().Compare(a.GetCreationTimestamp().Time), cmp.Compare(a.GetName(), b.GetName())) < 0
}
