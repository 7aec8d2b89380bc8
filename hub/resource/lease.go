package resource

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/coordination"
	"k8s.io/kubernetes/pkg/apis/coordination/validation"

	"petrel.dev/petrel/internal/kube"
)

func leaseKind() *Kind {
	k := declare(kube.Lease, "leases", "lease",
		func() kube.Object { return &coordinationv1.Lease{} }, func() runtime.Object { return &coordinationv1.LeaseList{} })
	k.Rules = strategy[coordination.Lease]{
		// Coordinated leader election, which these two fields are for, is not offered.
		prepareCreate: func(l *coordination.Lease) { l.Spec.Strategy, l.Spec.PreferredHolder = nil, nil },
		prepareUpdate: func(l, old *coordination.Lease) {
			if old.Spec.Strategy == nil {
				l.Spec.Strategy = nil
			}
			if old.Spec.PreferredHolder == nil {
				l.Spec.PreferredHolder = nil
			}
		},
		validateCreate:    validation.ValidateLease,
		validateUpdate:    validation.ValidateLeaseUpdate,
		createOnUpdate:    true,
		conditionalUpdate: true,
	}.rules()
	return k
}
