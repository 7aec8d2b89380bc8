package coordination

import (
	"k8s.io/kubernetes/pkg/apis/coordination"
	"k8s.io/kubernetes/pkg/apis/coordination/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

func leaseKind() *resource.Kind {
	k := resource.Declare(kube.Lease, "leases", "lease")
	k.Rules = resource.Strategy[coordination.Lease]{
		// Coordinated leader election, which these two fields are for, is not offered.
		PrepareCreate: func(l *coordination.Lease) { l.Spec.Strategy, l.Spec.PreferredHolder = nil, nil },
		PrepareUpdate: func(l, old *coordination.Lease) {
			if old.Spec.Strategy == nil {
				l.Spec.Strategy = nil
			}
			if old.Spec.PreferredHolder == nil {
				l.Spec.PreferredHolder = nil
			}
		},
		ValidateCreate:    validation.ValidateLease,
		ValidateUpdate:    validation.ValidateLeaseUpdate,
		CreateOnUpdate:    true,
		ConditionalUpdate: true,
	}.Rules()
	return k
}
