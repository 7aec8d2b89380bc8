package policy

import (
	"context"
	"errors"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// paramKind returns the kind of a policy's params; nil when it has none.
func (e *Evaluator) paramKind(p *admissionregistrationv1.ParamKind) (*resource.Kind, error) {
	if p == nil {
		return nil, nil
	}
	gv, err := schema.ParseGroupVersion(p.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("failed to parse paramKind APIVersion: %w", err)
	}
	k, ok := e.kinds.Lookup(gv.WithKind(p.Kind))
	if !ok || k.Virtual() {
		return nil, fmt.Errorf("failed to find resource referenced by paramKind: '%v'", gv.WithKind(p.Kind))
	}
	return k, nil
}

// params returns what a policy is evaluated with, once each: nil for one without params. namespace is that of the write.
func (e *Evaluator) params(ctx context.Context, k *resource.Kind, ref *admissionregistrationv1.ParamRef, namespace string) ([]runtime.Object, error) {
	if k == nil || ref == nil {
		return []runtime.Object{nil}, nil
	}
	if !k.Namespaced && ref.Namespace != "" {
		return nil, errors.New("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
	}
	if k.Namespaced {
		if ref.Namespace != "" {
			namespace = ref.Namespace
		} else if namespace == "" {
			return nil, errors.New("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
		}
	} else {
		namespace = ""
	}
	found, err := e.find(ctx, k, ref, namespace)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		if a := ref.ParameterNotFoundAction; a != nil && *a == admissionregistrationv1.DenyAction {
			return nil, errors.New("no params found for policy binding with `Deny` parameterNotFoundAction")
		}
		return nil, nil
	}
	if found, err = k.FromStored(ctx, found...); err != nil {
		return nil, err
	}
	out := make([]runtime.Object, len(found))
	for i, o := range found {
		out[i] = match.WithKind(o, k.GVK)
	}
	return out, nil
}

// find returns the objects that a reference names or selects, as they are stored.
func (e *Evaluator) find(ctx context.Context, k *resource.Kind, ref *admissionregistrationv1.ParamRef, namespace string) (found []kube.Object, err error) {
	add := func(name, namespace string) error {
		o, ok, err := e.objects.Whole(ctx, k.GVK, namespace, name)
		if err == nil && ok {
			found = append(found, o)
		}
		return err
	}
	switch {
	case ref.Name != "" && ref.Selector != nil:
		return nil, errors.New("paramRef.name and paramRef.selector are mutually exclusive")
	case ref.Name != "":
		err = add(ref.Name, namespace)
	case ref.Selector != nil:
		selector, err := metav1.LabelSelectorAsSelector(ref.Selector)
		if err != nil {
			return nil, err
		}
		for _, o := range e.objects.List(k.GVK, namespace) {
			if !selector.Matches(labels.Set(o.GetLabels())) {
				continue
			}
			if err := add(o.GetName(), o.GetNamespace()); err != nil {
				return nil, err
			}
		}
	default:
		return nil, errors.New("one of name or selector must be provided")
	}
	return found, err
}
