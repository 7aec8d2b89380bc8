package quota

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// one is the amount of a thing that is counted.
func one() resource.Quantity { return *resource.NewQuantity(1, resource.DecimalSI) }

// add adds more to sum, for those resources that sum has.
func add(sum, more corev1.ResourceList) {
	for name, v := range more {
		if have, ok := sum[name]; ok {
			have.Add(v)
			sum[name] = have
		}
	}
}

// subtract takes less from sum, for those resources that sum has.
func subtract(sum, less corev1.ResourceList) {
	for name, v := range less {
		if have, ok := sum[name]; ok {
			have.Sub(v)
			sum[name] = have
		}
	}
}

// beyond returns what now has more of than before.
func beyond(now, before corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, v := range now {
		v := v.DeepCopy()
		v.Sub(before[name])
		if v.Sign() > 0 {
			out[name] = v
		}
	}
	return out
}

// Text returns a list as upstream writes it in a refusal: "pods=1,requests.cpu=2".
func Text(list corev1.ResourceList) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(list)) {
		v := list[name]
		out = append(out, fmt.Sprintf("%s=%s", name, v.String()))
	}
	return strings.Join(out, ",")
}
