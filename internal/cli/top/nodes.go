package top

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/dynamic"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/kube"
)

// Nodes shows what nodes use.
type Nodes struct {
	view
	Node         string `arg:"" optional:"" name:"nodes" help:"Name of a node. Default: all."`
	ShowCapacity bool   `help:"Of the whole capacity, not only of what pods may use."`
}

// Run shows them.
func (n *Nodes) Run(ctx context.Context, s *cli.Streams) error {
	if n.Node != "" && n.Selector != "" {
		return errors.New("give the name of a node or a selector, not both")
	}
	client, _, err := n.Dynamic(ctx, s)
	if err != nil {
		return err
	}
	return n.show(ctx, s, func(w io.Writer) error { return n.frame(ctx, client, w) })
}

func (n *Nodes) frame(ctx context.Context, client dynamic.Interface, w io.Writer) error {
	opts := metav1.ListOptions{LabelSelector: n.Selector}
	items, err := list(ctx, client.Resource(nodeResource), n.Node, opts)
	if err != nil {
		return err
	}
	nodes, err := convert[corev1.Node](items)
	if err != nil {
		return err
	}
	items, err = list(ctx, client.Resource(nodeMetricResource), n.Node, opts)
	if err != nil && !(n.Node != "" && apierrors.IsNotFound(err)) { // the node exists, and is dark
		return err
	}
	metrics, err := convert[metricsv1beta1.NodeMetrics](items)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return errors.New("there are no such nodes")
	}
	n.print(w, nodes, metrics)
	return nil
}

// print writes a line a node; those without metrics, which are dark, come last.
func (n *Nodes) print(w io.Writer, nodes []corev1.Node, metrics []metricsv1beta1.NodeMetrics) {
	used := map[string]corev1.ResourceList{}
	for _, m := range metrics {
		used[m.Name] = m.Usage
	}
	slices.SortFunc(nodes, func(a, b corev1.Node) int {
		x, y := used[a.Name], used[b.Name]
		return cmp.Or(-cmp.Compare(min(len(x), 1), min(len(y), 1)), n.byUse(x, y), cmp.Compare(a.Name, b.Name))
	})
	out := printers.GetNewTabWriter(w)
	defer func() {
		out.Flush()
		if !n.NoHeaders { // programs read the table alone
			attention(w, nodes)
		}
	}()
	if !n.NoHeaders {
		fmt.Fprintln(out, "NAME\tCPU(cores)\tCPU(%)\tMEMORY(bytes)\tMEMORY(%)\t")
	}
	for _, node := range nodes {
		u, has := used[node.Name], node.Status.Allocatable
		if n.ShowCapacity {
			has = node.Status.Capacity
		}
		if len(u) == 0 {
			fmt.Fprintf(out, "%s\t<unknown>\t<unknown>\t<unknown>\t<unknown>\t\n", node.Name)
			continue
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t\n", node.Name, cores(u), share(u.Cpu().MilliValue(), has.Cpu().MilliValue()),
			mebibytes(u), share(u.Memory().Value(), has.Memory().Value()))
	}
}

// faults are the conditions of nodes that a person should see when they are true: that it is dark, and those of its board.
var faults = []corev1.NodeConditionType{kube.DarkCondition, kube.UnderVoltageCondition, kube.ThrottledCondition, kube.TemperatureCondition, kube.WearCondition}

// attention prints a line for each fault of a node, below the table, which has no room for sentences.
func attention(w io.Writer, nodes []corev1.Node) {
	first := true
	for _, node := range nodes {
		for _, kind := range faults {
			c := kube.FindCondition(node.Status.Conditions, kind)
			if c == nil || c.Status != corev1.ConditionTrue {
				continue
			}
			if first {
				fmt.Fprintln(w)
				first = false
			}
			fmt.Fprintf(w, "%s: %s\n", node.Name, c.Message)
		}
	}
}

// byUse compares by --sort-by, the greater first; everything is equal without it.
func (v *view) byUse(a, b corev1.ResourceList) int {
	switch v.SortBy {
	case "cpu":
		return b.Cpu().Cmp(*a.Cpu())
	case "memory":
		return b.Memory().Cmp(*a.Memory())
	}
	return 0
}

func cores(u corev1.ResourceList) string { return fmt.Sprintf("%dm", u.Cpu().MilliValue()) }

func mebibytes(u corev1.ResourceList) string { return fmt.Sprintf("%dMi", u.Memory().Value()>>20) }

// share returns how much of something is used; nothing of nothing is 0 %.
func share(used, has int64) string {
	if has <= 0 {
		return "0%"
	}
	return fmt.Sprintf("%d%%", int64(float64(used)/float64(has)*100))
}
