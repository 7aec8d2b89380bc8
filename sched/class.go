package sched

import (
	"crypto/sha256"
	"encoding/json"
)

// Class returns a value that is equal for pods which all filters treat alike, as those of one ReplicaSet. It is worked out each time:
// only pods that fit nowhere need it.
func (p *Pod) Class() string {
	o, spec := p.Object, &p.Object.Spec
	data, err := json.Marshal([]any{
		o.Namespace, o.Labels, p.priority, spec.PreemptionPolicy, spec.NodeName, spec.NodeSelector, spec.Affinity, spec.Tolerations,
		spec.TopologySpreadConstraints, p.requests.milliCPU, p.requests.memory, p.requests.ephemeral, p.requests.extended,
		p.ports, p.images, p.architectures, p.claims, spec.ResourceClaims,
	})
	if err != nil {
		return string(o.UID) // nobody else's
	}
	sum := sha256.Sum256(data)
	return string(sum[:])
}

// Independent reports whether nothing that is decided about pods of the same class can turn a refusal of the pod into a node: room
// only gets less. Affinity to others, spreading and claims may be satisfied by them.
func (p *Pod) Independent() bool {
	spec := &p.Object.Spec
	return len(p.claims) == 0 && len(spec.TopologySpreadConstraints) == 0 && (spec.Affinity == nil || spec.Affinity.PodAffinity == nil)
}
