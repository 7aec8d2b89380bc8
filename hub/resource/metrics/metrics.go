// Package metrics declares the kinds of metrics.k8s.io. Nothing of them is stored: hub/nodemetrics answers reads from what nodes
// measure.
package metrics

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/metrics/pkg/apis/metrics/install"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	kinds "petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// The kinds by name.
var (
	NodeMetrics = metricsv1beta1.SchemeGroupVersion.WithKind("NodeMetrics")
	PodMetrics  = metricsv1beta1.SchemeGroupVersion.WithKind("PodMetrics")
)

// known registers the types, once for all hubs of a process, which may start at the same time.
var known = sync.OnceFunc(func() { install.Install(kinds.Scheme()) })

// Kinds returns the declarations.
func Kinds() []*kinds.Kind {
	known()
	nodes := kinds.Declare(NodeMetrics, "nodes", "node")
	nodes.ClusterScoped()
	pods := kinds.Declare(PodMetrics, "pods", "pod")
	for _, k := range []*kinds.Kind{nodes, pods} {
		k.ReadOnly()
		k.Columns = columns
	}
	return []*kinds.Kind{nodes, pods}
}

// columns renders what metrics-server shows.
func columns(_ context.Context, objs []kube.Object, opts *metav1.TableOptions) (*metav1.Table, error) {
	t := &metav1.Table{Rows: []metav1.TableRow{}}
	if opts == nil || !opts.NoHeaders {
		t.ColumnDefinitions = []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
			{Name: "cpu", Type: "string"}, {Name: "memory", Type: "string"},
			{Name: "Window", Type: "string", Format: "duration"},
		}
	}
	for _, obj := range objs {
		var used corev1.ResourceList
		var window metav1.Duration
		switch o := obj.(type) {
		case *metricsv1beta1.NodeMetrics:
			used, window = o.Usage, o.Window
		case *metricsv1beta1.PodMetrics:
			used, window = sum(o.Containers), o.Window
		}
		t.Rows = append(t.Rows, metav1.TableRow{
			Cells:  []any{obj.GetName(), used.Cpu().String(), used.Memory().String(), window.Duration.String()},
			Object: runtime.RawExtension{Object: obj},
		})
	}
	return t, nil
}

// sum returns what containers use together.
func sum(containers []metricsv1beta1.ContainerMetrics) corev1.ResourceList {
	var cpu, memory resource.Quantity
	for _, c := range containers {
		cpu.Add(*c.Usage.Cpu())
		memory.Add(*c.Usage.Memory())
	}
	return corev1.ResourceList{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory}
}
