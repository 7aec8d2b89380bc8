package core

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
)

func limitRangeKind() *resource.Kind {
	k := resource.Declare(corev1.SchemeGroupVersion.WithKind("LimitRange"), "limitranges", "limitrange")
	k.ShortNames = []string{"limits"}
	k.Columns = resource.NameAndCreation
	k.Rules = resource.Strategy[api.LimitRange]{
		PrepareCreate: func(l *api.LimitRange) {
			if l.Name == "" { // the only kind that upstream names by itself
				l.Name = string(uuid.NewUUID())
			}
		},
		ValidateCreate: validation.ValidateLimitRange,
		ValidateUpdate: func(l, _ *api.LimitRange) field.ErrorList { return validation.ValidateLimitRange(l) },
		CreateOnUpdate: true,
	}.Rules()
	return k
}

func resourceQuotaKind() *resource.Kind {
	k := resource.Declare(corev1.SchemeGroupVersion.WithKind("ResourceQuota"), "resourcequotas", "resourcequota")
	k.ShortNames = []string{"quota"}
	k.ReturnDeletedObject = true
	k.Rules = resource.Strategy[api.ResourceQuota]{
		PrepareCreate:  func(q *api.ResourceQuota) { q.Status = api.ResourceQuotaStatus{} },
		PrepareUpdate:  func(q, old *api.ResourceQuota) { q.Status = *old.Status.DeepCopy() },
		ValidateCreate: validation.ValidateResourceQuota,
		ValidateUpdate: validation.ValidateResourceQuotaUpdate,
		WarnCreate:     func(_ context.Context, q *api.ResourceQuota) []string { return quotaWarnings(q.Spec.Hard) },
	}.Rules()
	k.Subresources["status"] = resource.Strategy[api.ResourceQuota]{
		PrepareUpdate:  func(q, old *api.ResourceQuota) { q.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: validation.ValidateResourceQuotaStatusUpdate,
	}.Status(k)
	return k
}

// quotaWarnings warns of a quota that allows more to be requested than to be used.
func quotaWarnings(hard api.ResourceList) []string {
	var out []string
	for _, name := range []api.ResourceName{api.ResourceCPU, api.ResourceMemory, api.ResourceStorage, api.ResourceEphemeralStorage} {
		asked := "requests." + name
		request, ok := hard[asked]
		if !ok && (name == api.ResourceCPU || name == api.ResourceMemory) { // whose plain names are short for it
			asked = name
			request, ok = hard[asked]
		}
		limit, limited := hard["limits."+name]
		if ok && limited && request.Cmp(limit) > 0 {
			out = append(out, fmt.Sprintf("ResourceQuota %s (%s) should be less than %s (%s)", asked, request.String(), "limits."+name, limit.String()))
		}
	}
	return out
}
