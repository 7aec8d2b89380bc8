package core

import (
	"context"
	"fmt"
	"strings"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// withAppArmor returns the rules of pods with the AppArmor annotations obeyed, which came before the fields. It works on the stored type
// only where a pod has such an annotation: few do, and a pod is converted for each step of its rules. The warning is given here and not by
// WarnCreate, which sees the fields as they are filled in and not which of them the client has written.
func withAppArmor(r resource.Rules) resource.Rules {
	prepare := r.PrepareCreate
	r.PrepareCreate = func(ctx context.Context, obj kube.Object) {
		if hasAppArmor(obj.GetAnnotations()) {
			pod := resource.Internal[api.Pod](obj)
			for _, text := range appArmorFromAnnotations(pod) {
				warning.AddWarning(ctx, "", text)
			}
			resource.External(pod, obj)
		}
		prepare(ctx, obj)
	}
	return r
}

func hasAppArmor(annotations map[string]string) bool {
	for key := range annotations {
		if strings.HasPrefix(key, api.DeprecatedAppArmorAnnotationKeyPrefix) {
			return true
		}
	}
	return false
}

// appArmorFromAnnotations fills the containers' AppArmor fields from the annotations that came before them. It returns warnings of
// annotations that stand in for a field, and of those that say nothing valid. Upstream's rules and text.
func appArmorFromAnnotations(pod *api.Pod) (warnings []string) {
	if pod.Spec.OS != nil && pod.Spec.OS.Name == api.Windows {
		return nil
	}
	var podProfile *api.AppArmorProfile
	if pod.Spec.SecurityContext != nil {
		podProfile = pod.Spec.SecurityContext.AppArmorProfile
	}
	podutil.VisitContainers(&pod.Spec, podutil.AllFeatureEnabledContainers(), func(c *api.Container, _ podutil.ContainerType) bool {
		key := api.DeprecatedAppArmorAnnotationKeyPrefix + c.Name
		annotation, ok := pod.Annotations[key]
		if !ok || c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			return true
		}
		profile := podutil.ApparmorFieldForAnnotation(annotation)
		valid := profile != nil && len(validation.ValidateAppArmorProfileField(profile, field.NewPath(""))) == 0
		if valid && apiequality.Semantic.DeepEqual(profile, podProfile) {
			return true // the pod's own field says the same
		}
		warnings = append(warnings, fmt.Sprintf(`%s: deprecated since v1.30; use the "appArmorProfile" field instead`,
			field.NewPath("metadata", "annotations").Key(key)))
		if valid {
			if c.SecurityContext == nil {
				c.SecurityContext = &api.SecurityContext{}
			}
			c.SecurityContext.AppArmorProfile = profile
		}
		return true
	})
	return warnings
}
