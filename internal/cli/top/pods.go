package top

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/dynamic"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"petrel.dev/petrel/internal/cli"
)

// Pods shows what pods use.
type Pods struct {
	view
	Pod           string `arg:"" optional:"" help:"Name of a pod. Default: all of the namespace."`
	AllNamespaces bool   `short:"A" help:"Of all namespaces."`
	FieldSelector string `help:"Only pods with these fields: metadata.name and metadata.namespace." placeholder:"SELECTOR"`
	Containers    bool   `help:"A line for each container."`
	Sum           bool   `help:"With the sum at the end."`
}

// Run shows them.
func (p *Pods) Run(ctx context.Context, s *cli.Streams) error {
	switch {
	case p.Pod != "" && (p.Selector != "" || p.FieldSelector != ""):
		return errors.New("give the name of a pod or a selector, not both")
	case p.Pod != "" && p.AllNamespaces:
		return errors.New("a name means a pod of one namespace: use -n NAMESPACE instead of --all-namespaces")
	}
	client, namespace, err := p.Dynamic(ctx, s)
	if err != nil {
		return err
	}
	if p.AllNamespaces {
		namespace = ""
	}
	return p.show(ctx, s, func(w io.Writer) error { return p.frame(ctx, client, namespace, w, s.Err) })
}

func (p *Pods) frame(ctx context.Context, client dynamic.Interface, namespace string, w, notes io.Writer) error {
	items, err := list(ctx, client.Resource(podMetricResource).Namespace(namespace), p.Pod, metav1.ListOptions{LabelSelector: p.Selector, FieldSelector: p.FieldSelector})
	if err != nil {
		return err
	}
	metrics, err := convert[metricsv1beta1.PodMetrics](items)
	if err != nil {
		return err
	}
	if len(metrics) == 0 {
		if p.Watch {
			notes = w // it belongs to the picture
		}
		fmt.Fprintln(notes, "No running pods with metrics found")
		return nil
	}
	p.print(w, metrics)
	return nil
}

func (p *Pods) print(w io.Writer, metrics []metricsv1beta1.PodMetrics) {
	slices.SortFunc(metrics, func(a, b metricsv1beta1.PodMetrics) int {
		return cmp.Or(p.byUse(sum(a.Containers), sum(b.Containers)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	out := printers.GetNewTabWriter(w)
	defer out.Flush()
	header, blank := "NAME\tCPU(cores)\tMEMORY(bytes)\t\n", ""
	if p.Containers {
		header, blank = "POD\t"+header, blank+"\t"
	}
	if p.AllNamespaces {
		header, blank = "NAMESPACE\t"+header, blank+"\t"
	}
	if !p.NoHeaders {
		fmt.Fprint(out, header)
	}
	var all []metricsv1beta1.ContainerMetrics
	for _, m := range metrics {
		all = append(all, m.Containers...)
		before := m.Name + "\t"
		if p.AllNamespaces {
			before = m.Namespace + "\t" + before
		}
		if !p.Containers {
			u := sum(m.Containers)
			fmt.Fprintf(out, "%s%s\t%s\t\n", before, cores(u), mebibytes(u))
			continue
		}
		slices.SortFunc(m.Containers, func(a, b metricsv1beta1.ContainerMetrics) int {
			return cmp.Or(p.byUse(a.Usage, b.Usage), cmp.Compare(a.Name, b.Name))
		})
		for _, c := range m.Containers {
			fmt.Fprintf(out, "%s%s\t%s\t%s\t\n", before, c.Name, cores(c.Usage), mebibytes(c.Usage))
		}
	}
	if p.Sum {
		u := sum(all)
		fmt.Fprintf(out, "%s\t________\t________\t\n%s\t%s\t%s\t\n", blank, blank, cores(u), mebibytes(u))
	}
}

// sum returns what containers use together.
func sum(containers []metricsv1beta1.ContainerMetrics) corev1.ResourceList {
	var u = corev1.ResourceList{}
	for _, c := range containers {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			q := u[name]
			q.Add(c.Usage[name])
			u[name] = q
		}
	}
	return u
}
