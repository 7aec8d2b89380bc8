// Package podtemplate has the rules that all workloads share for the pod template in their spec.
package podtemplate

import (
	"context"
	"fmt"

	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	api "k8s.io/kubernetes/pkg/apis/core"
)

var path = field.NewPath("spec", "template")

// CreateWarnings returns those for a new workload of that name.
func CreateWarnings(ctx context.Context, name string, template *api.PodTemplateSpec) []string {
	var out []string
	if msgs := utilvalidation.IsDNS1123Label(name); len(msgs) != 0 {
		out = append(out, fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs))
	}
	return append(out, podutil.GetWarningsForPodTemplate(ctx, path, template, nil)...)
}

// UpdateWarnings returns those for a workload whose generation has changed.
func UpdateWarnings(ctx context.Context, template, old *api.PodTemplateSpec) []string {
	return podutil.GetWarningsForPodTemplate(ctx, path, template, old)
}
