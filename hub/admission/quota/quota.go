// Package quota is the step of admission that holds writes to the ResourceQuotas of their namespace. It is the last one: what it
// sees is what is stored. hub/quota counts.
package quota

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/quota"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// Quotas is the step.
type Quotas struct {
	objects control.Reader
	ledger  *quota.Ledger
}

// New returns the step, which reads quotas from objects.
func New(objects control.Reader, ledger *quota.Ledger) *Quotas { return &Quotas{objects, ledger} }

// Charge takes what the write adds from each quota of its namespace, or refuses the write. Where there is no quota, one look into
// the cache is all.
func (s *Quotas) Charge(ctx context.Context, a *registry.AdmissionRequest) error {
	k := a.Target.Kind
	create := a.Operation == registry.OpCreate
	if a.Object == nil || !k.Namespaced || k.Virtual() || !create && a.Operation != registry.OpUpdate ||
		!quota.Concerns(k.Resource(), create, a.Subresource, a.Object, a.Old) {
		return nil
	}
	quotas := control.List[*corev1.ResourceQuota](s.objects, kube.ResourceQuota, a.Object.GetNamespace())
	if len(quotas) == 0 {
		return nil
	}
	w := quota.Write{Resource: k.Resource(), GVK: k.GVK, New: a.Object, DryRun: a.DryRun}
	if !create {
		w.Old = a.Old
	}
	err := s.ledger.Reserve(ctx, quotas, w)
	var refused *quota.Refusal
	if errors.As(err, &refused) {
		return refuse.Forbidden(a, refused)
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return nil
}
