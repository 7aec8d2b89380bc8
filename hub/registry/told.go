package registry

import (
	"context"
	"errors"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// Told declares objects that are not stored: in one namespace, a kind has exactly one object for each object of another
// kind, under its name, and what it says is made up whenever somebody asks. A node's Lease is one: it says when the node
// was last heard of, which is not worth a write.
//
// Such an object's resourceVersion is that of the object it is made from, so lists and watches of it are lists and
// watches of the other: it appears, changes and goes when that does. What else changes in it is no event.
type Told struct {
	GVK       kube.GVK
	Namespace string
	From      kube.GVK // of cluster scope
	// Make makes the object, which the caller owns, from a shared one. Its name, namespace and resourceVersion are filled
	// in. Labels must not depend on anything but the name: no object enters or leaves a selection.
	Make func(from kube.Object) kube.Object
	// Why says in the refusal of a write where the object comes from.
	Why string
}

// tells returns the declaration if k has objects that are told, nil otherwise.
func (r *Registry) tells(k *resource.Kind) *Told {
	if r.told == nil || r.told.GVK != k.GVK {
		return nil
	}
	return r.told
}

// toldFrom returns the kind that key's object is made from, nil when it is stored as what k is.
func (r *Registry) toldFrom(k *resource.Kind, key string) *resource.Kind {
	told := r.tells(k)
	if told == nil {
		return nil
	}
	from := r.kindFor(told.From)
	if from == nil || !strings.HasPrefix(key, resource.Prefix(from, "")) {
		return nil
	}
	return from
}

// tell makes the object of k that is told from key.
func (r *Registry) tell(k, from *resource.Kind, key string, rev sqlstore.Revision, raw []byte) (kube.Object, error) {
	src, err := r.objects.Typed(from, key, rev, raw)
	if err != nil {
		return nil, err
	}
	obj := r.told.Make(src)
	obj.GetObjectKind().SetGroupVersionKind(k.GVK)
	obj.SetNamespace(r.told.Namespace)
	obj.SetName(src.GetName())
	obj.SetResourceVersion(objects.FormatRevision(rev))
	return obj, nil
}

// tellKey is the key that t's object is told from; ok is false when t is about stored objects.
func (r *Registry) tellKey(t resource.Target) (key string, ok bool) {
	told := r.tells(t.Kind)
	if told == nil || t.Namespace != told.Namespace {
		return "", false
	}
	from := r.kindFor(told.From)
	if from == nil {
		return "", false
	}
	return resource.Key(from, "", t.Name), true
}

// widen has a selection cover the objects that are told: instead of those stored when it is about their namespace, beside
// them when it is about all.
func (r *Registry) widen(s *selection, namespace, name string) {
	told := r.tells(s.kind)
	if told == nil || namespace != "" && namespace != told.Namespace {
		return
	}
	from := r.kindFor(told.From)
	switch {
	case from == nil:
	case namespace == "":
		s.also = resource.Prefix(from, "")
	default:
		s.prefix = resource.Prefix(from, "")
		if s.key = ""; name != "" {
			s.key = s.prefix + name
			s.prefix = s.key
		}
	}
}

// refuseTold refuses to write what is told.
func (r *Registry) refuseTold(t resource.Target) error {
	if _, ok := r.tellKey(t); !ok {
		return nil
	}
	return apierrors.NewForbidden(groupResource(t.Kind), t.Name, errors.New(r.told.Why))
}

// refuseToldCreate is refuseTold for a new object, whose name may be taken.
func (r *Registry) refuseToldCreate(ctx context.Context, t resource.Target, obj kube.Object) error {
	if t.Namespace == "" {
		t.Namespace = obj.GetNamespace()
	}
	t.Name = obj.GetName()
	key, ok := r.tellKey(t)
	if !ok {
		return nil
	}
	_, taken, err := r.store.Get(ctx, key)
	if err != nil {
		return storeFailure(t.Kind, "create", err)
	}
	if taken {
		return apierrors.NewAlreadyExists(groupResource(t.Kind), t.Name)
	}
	return r.refuseTold(t)
}
