package policy

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Objects reads stored objects; *objects.Cache is one.
type Objects interface {
	control.Reader
	// Whole returns an object as it is stored, also where Reader shows only a part of such objects. ok is false when there is none. The
	// object is shared: read-only.
	Whole(ctx context.Context, gvk kube.GVK, namespace, name string) (obj kube.Object, ok bool, err error)
}

// Evaluator evaluates policies. It is safe for concurrent use.
type Evaluator struct {
	objects    Objects
	kinds      match.Kinds
	types      managedfields.TypeConverter
	scheme     admission.ObjectInterfaces
	authorizer authorizer.Authorizer
	log        *slog.Logger
}

// New returns an evaluator. types describes all kinds, for patches that are apply configurations. All arguments are required.
func New(objects Objects, kinds match.Kinds, types managedfields.TypeConverter, authz authorizer.Authorizer, log *slog.Logger) *Evaluator {
	return &Evaluator{objects: objects, kinds: kinds, types: types, authorizer: authz, log: log,
		scheme: admission.NewObjectInterfacesFromScheme(resource.Scheme())}
}

// exempt reports whether no policy is about the write: of what configures admission, and of the reviews that authentication and
// authorization depend on.
func exempt(w *match.Write) bool {
	switch gr := w.GetResource().GroupResource(); gr.Group {
	case "authentication.k8s.io", "authorization.k8s.io":
		return true
	case "admissionregistration.k8s.io":
		switch gr.Resource {
		case "validatingadmissionpolicies", "validatingadmissionpolicybindings", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings":
			return true
		}
	}
	return false
}

// invocation is one policy that a write concerns, by one binding and with one object of params.
type invocation struct {
	policy  *definition
	binding *binding
	hit     match.Hit
	param   runtime.Object // nil: none
}

// key names the invocation among those of a request.
func (i *invocation) key() string {
	param := ""
	if o, ok := i.param.(kube.Object); ok {
		param = o.GetNamespace() + "/" + o.GetName()
	}
	return i.policy.name + "\n" + i.binding.name + "\n" + param
}

// problem is why a policy, or one of its bindings, could not be evaluated. The failure policy has been obeyed already.
type problem struct {
	policy  *definition
	binding *binding // nil: the policy itself
	err     error
}

// Error has upstream's text.
func (p *problem) Error() string {
	if p.binding != nil {
		return fmt.Sprintf("failed to configure binding: %v", p.err)
	}
	return fmt.Sprintf("failed to configure policy: %v", p.err)
}

// invocations returns what concerns the write. Problems are those that refuse it: a policy whose failures are ignored has none. An error
// is the Status of a write that too much concerns.
func (e *Evaluator) invocations(ctx context.Context, list []*policy, w *match.Write) (out []*invocation, problems []*problem, err error) {
	for _, p := range list {
		failed := func(b *binding, err error) {
			e.log.Debug("an admission policy cannot be evaluated", "policy", p.name, "error", err)
			if p.fails != "Ignore" {
				problems = append(problems, &problem{p.definition, b, err})
			}
		}
		if p.broken != nil {
			failed(nil, p.broken)
			continue
		}
		hit, ok, err := p.scope.Match(w)
		if err != nil {
			failed(nil, err)
		}
		if err != nil || !ok {
			continue
		}
		kind, err := e.paramKind(p.params)
		if err != nil {
			failed(nil, err)
			continue
		}
		for _, b := range p.bindings {
			ok, err := b.matches(w)
			if err == nil && !ok {
				continue
			}
			var params []runtime.Object
			if err == nil {
				params, err = e.params(ctx, kind, b.params, w.GetNamespace())
			}
			if err == nil && len(params) > 0 {
				if _, err = w.As(ctx, hit.Kind); err != nil {
					err = fmt.Errorf("failed to convert object version: %w", err)
				}
			}
			if err != nil {
				failed(b, err)
				continue
			}
			if len(out)+len(params) > maxInvocations {
				return nil, nil, tooMany(w)
			}
			for _, param := range params {
				out = append(out, &invocation{p.definition, b, hit, param})
			}
		}
	}
	return out, problems, nil
}

// namespace returns the Namespace that the write is in; nil for cluster scope. A Namespace is not in itself here.
func (e *Evaluator) namespace(w *match.Write) (*corev1.Namespace, error) {
	if gvk := w.GetKind(); w.GetNamespace() == "" || gvk == (schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}) {
		return nil, nil
	}
	return w.Namespace(w.GetNamespace())
}
