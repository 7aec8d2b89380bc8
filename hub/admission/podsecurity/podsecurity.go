// Package podsecurity holds pods to the Pod Security Standards that their namespace's labels name, by upstream's checks:
// pod-security.kubernetes.io/enforce refuses pods, /warn warns of pods and of workloads whose pods would be refused, /audit
// annotates their requests in the audit log. Nothing is exempt; a namespace without labels is privileged.
package podsecurity

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/audit"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// Standards is the step.
type Standards struct{ objects control.Reader }

// New returns the step, which reads namespaces and pods from objects.
func New(objects control.Reader) *Standards { return &Standards{objects} }

// evaluator has upstream's checks of all versions. It is made when the first namespace asks for one.
var evaluator = sync.OnceValue(func() policy.Evaluator {
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(err) // upstream's own checks contradict each other
	}
	return e
})

// privileged is the policy of a namespace without labels.
var privileged = func() api.Policy {
	lv := api.LevelVersion{Level: api.LevelPrivileged, Version: api.LatestVersion()}
	return api.Policy{Enforce: lv, Audit: lv, Warn: lv}
}()

// Check refuses pods that the namespace does not allow, and namespaces whose labels cannot be read; it warns of workloads.
func (s *Standards) Check(ctx context.Context, a *registry.AdmissionRequest) error {
	if a.Object == nil || a.Operation != registry.OpCreate && a.Operation != registry.OpUpdate {
		return nil
	}
	switch obj := a.Object.(type) {
	case *corev1.Namespace:
		if a.Subresource == "" {
			return s.namespace(ctx, a, obj)
		}
	case *corev1.Pod:
		if podChanges(a, obj) {
			return s.evaluate(ctx, a, &obj.ObjectMeta, &obj.Spec, true)
		}
	default:
		if a.Subresource != "" {
			return nil
		}
		if t := template(obj); t != nil {
			return s.evaluate(ctx, a, &t.ObjectMeta, &t.Spec, false)
		}
	}
	return nil
}

// podChanges reports whether a may make a pod another one than it was: all that can change later, besides, is an image, and that a
// container is added.
func podChanges(a *registry.AdmissionRequest, pod *corev1.Pod) bool {
	if a.Operation == registry.OpCreate {
		return a.Subresource == "" // a verb of a pod that exists, such as its binding, changes nothing that is checked
	}
	old, ok := a.Old.(*corev1.Pod)
	if !ok || a.Subresource == "status" {
		return false
	}
	images := map[string]string{}
	each(&old.Spec, func(name, image string) { images[name] = image })
	changed := len(pod.Spec.Containers) != len(old.Spec.Containers) || len(pod.Spec.InitContainers) != len(old.Spec.InitContainers)
	each(&pod.Spec, func(name, image string) {
		was, had := images[name]
		changed = changed || !had || was != image
	})
	return changed
}

// each calls f for every container.
func each(spec *corev1.PodSpec, f func(name, image string)) {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range list {
			f(c.Name, c.Image)
		}
	}
	for _, c := range spec.EphemeralContainers {
		f(c.Name, c.Image)
	}
}

// note annotates the request in the audit log.
func note(ctx context.Context, key, value string) {
	audit.Annotate(ctx, auditinternal.LevelMetadata, api.AuditAnnotationPrefix+key, value)
}

// evaluate checks a pod, or the pods that a workload would make. enforce: what is not allowed is refused; otherwise it is only
// warned of and recorded.
func (s *Standards) evaluate(ctx context.Context, a *registry.AdmissionRequest, meta *metav1.ObjectMeta, spec *corev1.PodSpec, enforce bool) error {
	ns, ok := control.Get[*corev1.Namespace](s.objects, kube.Namespace, "", a.Object.GetNamespace())
	if !ok {
		if !enforce {
			return nil
		}
		return apierrors.NewInternalError(fmt.Errorf("failed to lookup namespace %q", a.Object.GetNamespace()))
	}
	p, errs := api.PolicyToEvaluate(ns.Labels, privileged) // labels that cannot be read mean restricted
	if len(errs) > 0 {
		note(ctx, "error", fmt.Sprintf("Failed to parse policy: %v", errs.ToAggregate()))
	}
	var refused error
	if enforce {
		note(ctx, api.EnforcedPolicyAnnotationKey, p.Enforce.String())
	}
	if enforce && p.Enforce.Level != api.LevelPrivileged {
		if r := check(p.Enforce, meta, spec); !r.Allowed {
			refused = refuse.Forbidden(a, fmt.Errorf("violates PodSecurity %q: %s", p.Enforce.String(), r.ForbiddenDetail()))
		}
	}
	if p.Audit.Level != api.LevelPrivileged && audit.Records(ctx, auditinternal.LevelMetadata) {
		if r := check(p.Audit, meta, spec); !r.Allowed {
			note(ctx, api.AuditViolationsAnnotationKey, fmt.Sprintf("would violate PodSecurity %q: %s", p.Audit.String(), r.ForbiddenDetail()))
		}
	}
	if refused != nil {
		return refused
	}
	if p.Warn.Level != api.LevelPrivileged {
		if r := check(p.Warn, meta, spec); !r.Allowed {
			warning.AddWarning(ctx, "", fmt.Sprintf("would violate PodSecurity %q: %s", p.Warn.String(), r.ForbiddenDetail()))
		}
	}
	return nil
}

func check(lv api.LevelVersion, meta *metav1.ObjectMeta, spec *corev1.PodSpec) policy.AggregateCheckResult {
	return policy.AggregateCheckResults(evaluator().EvaluatePod(lv, meta, spec))
}
