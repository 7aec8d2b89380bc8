package resource

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/internal/kube"
)

func limitRangeKind() *Kind {
	k := declare(corev1.SchemeGroupVersion.WithKind("LimitRange"), "limitranges", "limitrange",
		func() kube.Object { return &corev1.LimitRange{} }, func() runtime.Object { return &corev1.LimitRangeList{} })
	k.ShortNames = []string{"limits"}
	k.Columns = nameAndCreation
	k.Inert = nothingActs
	k.Rules = strategy[api.LimitRange]{
		prepareCreate: func(l *api.LimitRange) {
			if l.Name == "" { // the only kind that upstream names by itself
				l.Name = string(uuid.NewUUID())
			}
		},
		validateCreate: validation.ValidateLimitRange,
		validateUpdate: func(l, _ *api.LimitRange) field.ErrorList { return validation.ValidateLimitRange(l) },
		createOnUpdate: true,
	}.rules()
	return k
}

func resourceQuotaKind() *Kind {
	k := declare(corev1.SchemeGroupVersion.WithKind("ResourceQuota"), "resourcequotas", "resourcequota",
		func() kube.Object { return &corev1.ResourceQuota{} }, func() runtime.Object { return &corev1.ResourceQuotaList{} })
	k.ShortNames = []string{"quota"}
	k.Inert = nothingActs
	k.ReturnDeletedObject = true
	k.Rules = strategy[api.ResourceQuota]{
		prepareCreate:  func(q *api.ResourceQuota) { q.Status = api.ResourceQuotaStatus{} },
		prepareUpdate:  func(q, old *api.ResourceQuota) { q.Status = *old.Status.DeepCopy() },
		validateCreate: validation.ValidateResourceQuota,
		validateUpdate: validation.ValidateResourceQuotaUpdate,
		warnCreate:     func(_ context.Context, q *api.ResourceQuota) []string { return quotaWarnings(q.Spec.Hard) },
	}.rules()
	k.Subresources["status"] = strategy[api.ResourceQuota]{
		prepareUpdate:  func(q, old *api.ResourceQuota) { q.Spec = *old.Spec.DeepCopy() },
		validateUpdate: validation.ValidateResourceQuotaStatusUpdate,
	}.status(k)
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
