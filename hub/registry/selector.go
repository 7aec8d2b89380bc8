package registry

import (
	"context"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// selection selects objects of a kind for a list or watch. What the key alone decides (namespace, name) narrows the range of keys;
// only the rest needs the typed object. It is immutable.
type selection struct {
	kind   *resource.Kind
	prefix string
	key    string // set when only one object can match
	labels labels.Selector
	fields fields.Selector
}

// selectionOf reads the selectors of a request.
func (r *Registry) selectionOf(t resource.Target, opts *metav1.ListOptions) (*selection, error) {
	s := &selection{kind: t.Kind}
	namespace, name := t.Namespace, t.Name
	if opts.LabelSelector != "" {
		sel, err := labels.Parse(opts.LabelSelector)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if !sel.Empty() {
			s.labels = sel
		}
	}
	if opts.FieldSelector != "" {
		sel, err := fields.ParseSelector(opts.FieldSelector)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if sel, err = t.Kind.FieldSelector(sel); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		var rest []fields.Selector
		for _, req := range sel.Requirements() {
			exact := req.Operator == "=" || req.Operator == "=="
			switch {
			case exact && req.Field == "metadata.name" && (name == "" || name == req.Value):
				name = req.Value
			case exact && req.Field == "metadata.namespace" && t.Kind.Namespaced && (namespace == "" || namespace == req.Value):
				namespace = req.Value
			case exact:
				rest = append(rest, fields.OneTermEqualSelector(req.Field, req.Value))
			default:
				rest = append(rest, fields.OneTermNotEqualSelector(req.Field, req.Value))
			}
		}
		if name != "" && t.Kind.Namespaced && namespace == "" {
			rest = append(rest, fields.OneTermEqualSelector("metadata.name", name))
			name = ""
		}
		if len(rest) > 0 {
			s.fields = fields.AndSelectors(rest...)
		}
	}
	s.prefix = resource.Prefix(t.Kind, namespace)
	if name != "" && (namespace != "" || !t.Kind.Namespaced) {
		s.key = s.prefix + name
		s.prefix = s.key
	}
	return s, nil
}

// plain reports whether everything in the range of keys is selected, so that nothing needs to be decoded.
func (s *selection) plain() bool { return s.labels == nil && s.fields == nil }

// hasKey reports whether a key of a list or watch is in range: a prefix that is a whole key also begins
// longer names.
func (s *selection) hasKey(key string) bool {
	return s.key == "" || key == s.key
}

// matches reports whether the typed object is selected; its key is in range already.
func (s *selection) matches(obj kube.Object) bool {
	if s.labels != nil && !s.labels.Matches(labels.Set(obj.GetLabels())) {
		return false
	}
	if s.fields == nil {
		return true
	}
	k := s.kind.Working()
	shown, err := k.FromStored(context.Background(), obj) // a conversion has bounds of its own
	return err == nil && s.fields.Matches(fieldsOf(k, shown[0]))
}

// fieldsOf returns the values of the Working kind's fields, also for a view: its FieldSelector has translated the labels.
func fieldsOf(k *resource.Kind, obj kube.Object) fields.Set {
	if k.Fields != nil {
		return k.Fields(obj)
	}
	return fields.Set{"metadata.name": obj.GetName(), "metadata.namespace": obj.GetNamespace()}
}

// selects reports whether an entry of a list is selected. A selector never selects what cannot be decoded; an error means that it cannot be
// decrypted.
func (r *Registry) selects(s *selection, e sqlstore.Entry, open sqlstore.Opener) (ok bool, err error) {
	if s.plain() {
		return true, nil
	}
	if obj, ok := r.objects.AtHand(e.Key, e.Rev); ok {
		return s.matches(obj), nil
	}
	if open != nil {
		if e.Value, err = open(e); err != nil {
			return false, err
		}
	}
	if s.byMetadata() {
		return r.selectsShared(s, e.Key, e.Rev, e.Value), nil
	}
	obj, err := objects.Decode(s.kind.Stored(), e.Value)
	return err == nil && s.matches(obj), nil
}

// byMetadata reports whether matches needs no more than metadata, of a kind whose objects are not at hand.
func (s *selection) byMetadata() bool { return s.fields == nil && s.kind.Stored().Slim != nil }
