package podsecurity

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/pod-security-admission/api"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// Bounds of the look at a namespace's pods when it gets a stricter level.
const (
	maxPods     = 3000
	maxPodsTime = time.Second
)

// namespace refuses new labels that cannot be read, and warns of pods that a stricter level would refuse.
func (s *Standards) namespace(ctx context.Context, a *registry.AdmissionRequest, ns *corev1.Namespace) error {
	next, errs := api.PolicyToEvaluate(ns.Labels, privileged)
	var was api.Policy
	old, update := a.Old.(*corev1.Namespace)
	if update {
		had, oldErrs := api.PolicyToEvaluate(old.Labels, privileged)
		if len(errs) > 0 && reflect.DeepEqual(errs, oldErrs) {
			errs = nil // what was stored before may stay
		}
		was = had
	}
	if len(errs) > 0 {
		return kube.NewInvalid(kube.Namespace.GroupKind(), ns.Name, errs)
	}
	if !update || !stricter(next.Enforce, was.Enforce) {
		return nil
	}
	for _, text := range s.violations(ctx, ns.Name, next.Enforce) {
		warning.AddWarning(ctx, "", text)
	}
	return nil
}

// stricter reports whether pods that were allowed before may be refused now.
func stricter(next, was api.LevelVersion) bool {
	return next != was && next.Level != api.LevelPrivileged &&
		(next.Version != was.Version || api.CompareLevels(next.Level, was.Level) > 0)
}

// violations returns a warning for each way in which existing pods violate a level, with the first pod's name and how many more
// there are, and a headline before them.
func (s *Standards) violations(ctx context.Context, namespace string, lv api.LevelVersion) (out []string) {
	pods := oneOfEachOwnerFirst(control.List[*corev1.Pod](s.objects, kube.Pod, namespace))
	end := time.Now().Add(maxPodsTime)
	names := map[string][]string{} // of pods, by what is wrong with them
	checked := 0
	for _, p := range pods[:min(len(pods), maxPods)] {
		if time.Now().After(end) || ctx.Err() != nil {
			break
		}
		checked++
		if r := check(lv, &p.ObjectMeta, &p.Spec); !r.Allowed {
			why := r.ForbiddenReason()
			names[why] = append(names[why], p.Name)
		}
	}
	if checked < len(pods) {
		out = append(out, fmt.Sprintf("new PodSecurity enforce level only checked against the first %d of %d existing pods", checked, len(pods)))
	}
	if len(names) == 0 {
		return out
	}
	out = append(out, fmt.Sprintf("existing pods in namespace %q violate the new PodSecurity enforce level %q", namespace, lv.String()))
	var each []string
	for why, pods := range names {
		who := slices.Min(pods)
		switch more := len(pods) - 1; more {
		case 0:
		case 1:
			who += " (and 1 other pod)"
		default:
			who += fmt.Sprintf(" (and %d other pods)", more)
		}
		each = append(each, who+": "+why)
	}
	slices.SortFunc(each, strings.Compare)
	return append(out, each...)
}

// oneOfEachOwnerFirst returns pods in the order in which to look at them: those of one owner are alike, so all but one come last.
func oneOfEachOwnerFirst(pods []*corev1.Pod) []*corev1.Pod {
	var first, more []*corev1.Pod
	seen := map[types.UID]bool{}
	for _, p := range pods {
		if owner := metav1.GetControllerOfNoCopy(p); owner != nil {
			if seen[owner.UID] {
				more = append(more, p)
				continue
			}
			seen[owner.UID] = true
		}
		first = append(first, p)
	}
	return append(first, more...)
}
