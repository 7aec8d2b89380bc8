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

// NameWarnings returns those for the name of a workload whose pods are named after it.
func NameWarnings(name string) []string {
	if msgs := utilvalidation.IsDNS1123Label(name); len(msgs) != 0 {
		return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs)}
	}
	return nil
}

// CreateWarnings returns those for a new workload of that name.
func CreateWarnings(ctx context.Context, name string, template *api.PodTemplateSpec) []string {
	return append(NameWarnings(name), podutil.GetWarningsForPodTemplate(ctx, path, template, nil)...)
}

// UpdateWarnings returns those for a workload whose template may have changed. old is nil for a new one.
func UpdateWarnings(ctx context.Context, template, old *api.PodTemplateSpec) []string {
	return podutil.GetWarningsForPodTemplate(ctx, path, template, old)
}
