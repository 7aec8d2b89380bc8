// Package nodemetrics answers metrics.k8s.io, which kubectl top and autoscalers read, from what the nodes measure.
//
//	GET /apis/metrics.k8s.io/v1beta1/... ─► Verbs ─► nodes, at that moment ─► /stats/summary of each agent
//
// Nothing is stored or collected: a fleet that is not asked about sends nothing. A node that is dark has no metrics, and its pods
// have none, as with metrics-server.
package nodemetrics

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	kinds "petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/metrics"
	"petrel.dev/petrel/internal/kube"
)

// Nodes connects to agents; hub/reach is one.
type Nodes interface {
	DialNode(ctx context.Context, node string, port int32) (net.Conn, error)
}

// Config is what Verbs need. All of it is required.
type Config struct {
	Verbs   registry.Verbs // of all other kinds
	Objects control.Reader
	Nodes   Nodes
	// Absent returns why a node is not connected, or nil. One that is not has no metrics, however fresh its last answer.
	Absent func(node string) error
	Log    *slog.Logger
}

// Verbs are those of the registry, with reads of metrics answered by nodes.
type Verbs struct {
	registry.Verbs
	cfg   Config
	asker asker
}

// New returns the verbs.
func New(cfg Config) *Verbs { return &Verbs{Verbs: cfg.Verbs, cfg: cfg, asker: asker{cfg: cfg}} }

// Get implements registry.Verbs.
func (v *Verbs) Get(ctx context.Context, t kinds.Target, opts *metav1.GetOptions) (*registry.Result, error) {
	var obj kube.Object
	node := "" // that would have to answer
	switch t.Kind.GVK {
	case metrics.NodeMetrics:
		if n, ok := control.Get[*corev1.Node](v.cfg.Objects, kube.Node, "", t.Name); ok {
			node = n.Name
			u, answered := v.asker.of(ctx, question{node: node})
			obj = nodeMetrics(n, u, answered)
		}
	case metrics.PodMetrics:
		if p, ok := control.Get[*corev1.Pod](v.cfg.Objects, kube.Pod, t.Namespace, t.Name); ok && measurable(p) {
			node = p.Spec.NodeName
			u, answered := v.asker.of(ctx, question{node: node})
			obj = podMetrics(p, u, answered)
		}
	default:
		return v.Verbs.Get(ctx, t, opts)
	}
	if obj == nil {
		return nil, v.none(t, node)
	}
	raw, err := json.Marshal(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return &registry.Result{JSON: raw, Object: obj}, nil
}

// none is the error for what has no metrics: NotFound, as clients expect of it, with the reason when that is a node which is not connected.
func (v *Verbs) none(t kinds.Target, node string) error {
	err := apierrors.NewNotFound(t.Kind.Resource(), t.Name)
	if node == "" {
		return err
	}
	if why := v.cfg.Absent(node); why != nil {
		err.ErrStatus.Message += ": " + why.Error()
	}
	return err
}

// List implements registry.Verbs.
func (v *Verbs) List(ctx context.Context, t kinds.Target, opts *metav1.ListOptions) (*registry.ListResult, error) {
	if gvk := t.Kind.GVK; gvk != metrics.NodeMetrics && gvk != metrics.PodMetrics {
		return v.Verbs.List(ctx, t, opts)
	}
	selected, err := selector(t.Kind, opts)
	if err != nil {
		return nil, err
	}
	var objs []kube.Object
	if t.Kind.GVK == metrics.NodeMetrics {
		objs = v.nodes(ctx, selected)
	} else {
		objs = v.pods(ctx, t.Namespace, selected)
	}
	res := &registry.ListResult{Items: []json.RawMessage{}}
	for _, obj := range objs {
		raw, err := json.Marshal(obj)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		res.Items = append(res.Items, raw)
	}
	return res, nil
}

// selector returns what a list selects, by the node or pod that metrics are of.
func selector(k *kinds.Kind, opts *metav1.ListOptions) (func(kube.Object) bool, error) {
	if opts == nil {
		opts = &metav1.ListOptions{}
	}
	byLabel, err := labels.Parse(opts.LabelSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	byField, err := fields.ParseSelector(opts.FieldSelector)
	if err == nil {
		byField, err = k.FieldSelector(byField)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return func(obj kube.Object) bool {
		return byLabel.Matches(labels.Set(obj.GetLabels())) &&
			byField.Matches(fields.Set{"metadata.name": obj.GetName(), "metadata.namespace": obj.GetNamespace()})
	}, nil
}

func (v *Verbs) nodes(ctx context.Context, selected func(kube.Object) bool) (out []kube.Object) {
	var nodes []*corev1.Node
	var questions []question
	for _, n := range control.List[*corev1.Node](v.cfg.Objects, kube.Node, "") {
		if selected(n) {
			nodes, questions = append(nodes, n), append(questions, question{node: n.Name})
		}
	}
	used := v.asker.all(ctx, questions)
	for _, n := range nodes {
		u, answered := used[n.Name]
		if m := nodeMetrics(n, u, answered); m != nil {
			out = append(out, m)
		}
	}
	return out
}

// Pods returns the metrics of pods, in no order, by asking their nodes for these pods only. A pod that has none is left out.
func (v *Verbs) Pods(ctx context.Context, pods []*corev1.Pod) []*metricsv1beta1.PodMetrics {
	uids := map[string][]string{}
	for _, p := range pods {
		if measurable(p) {
			uids[p.Spec.NodeName] = append(uids[p.Spec.NodeName], string(p.UID))
		}
	}
	questions := make([]question, 0, len(uids))
	for node, list := range uids {
		questions = append(questions, about(node, list))
	}
	used := v.asker.all(ctx, questions)
	var out []*metricsv1beta1.PodMetrics
	for _, p := range pods {
		if u, answered := used[p.Spec.NodeName]; answered && measurable(p) {
			if m, ok := podMetrics(p, u, true).(*metricsv1beta1.PodMetrics); ok {
				out = append(out, m)
			}
		}
	}
	return out
}

func (v *Verbs) pods(ctx context.Context, namespace string, selected func(kube.Object) bool) (out []kube.Object) {
	var pods []*corev1.Pod
	nodes := map[string]bool{}
	for _, p := range control.List[*corev1.Pod](v.cfg.Objects, kube.Pod, namespace) {
		if measurable(p) && selected(p) {
			pods = append(pods, p)
			nodes[p.Spec.NodeName] = true
		}
	}
	questions := make([]question, 0, len(nodes))
	for name := range nodes {
		questions = append(questions, question{node: name})
	}
	used := v.asker.all(ctx, questions)
	for _, p := range pods {
		u, answered := used[p.Spec.NodeName]
		if m := podMetrics(p, u, answered); m != nil {
			out = append(out, m)
		}
	}
	return out
}

// measurable reports whether a pod may have metrics: one that runs.
func measurable(p *corev1.Pod) bool {
	return p.Spec.NodeName != "" && p.Status.Phase == corev1.PodRunning
}

// nodeMetrics returns the metrics of a node; nil when it has not answered.
func nodeMetrics(n *corev1.Node, u use, answered bool) kube.Object {
	if !answered || !u.node.ok {
		return nil
	}
	return &metricsv1beta1.NodeMetrics{
		TypeMeta:   metav1.TypeMeta{Kind: metrics.NodeMetrics.Kind, APIVersion: metricsv1beta1.SchemeGroupVersion.String()},
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels, CreationTimestamp: metav1.NewTime(u.at)},
		Timestamp:  metav1.NewTime(u.at), Window: metav1.Duration{Duration: u.window},
		Usage: u.node.list(),
	}
}

// podMetrics returns the metrics of a pod; nil when there are none, or none of one of its containers that run.
func podMetrics(p *corev1.Pod, u use, answered bool) kube.Object {
	loads := u.pods[string(p.UID)]
	if !answered || len(loads) == 0 {
		return nil
	}
	m := &metricsv1beta1.PodMetrics{
		TypeMeta:   metav1.TypeMeta{Kind: metrics.PodMetrics.Kind, APIVersion: metricsv1beta1.SchemeGroupVersion.String()},
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, Labels: p.Labels, CreationTimestamp: metav1.NewTime(u.at)},
		Timestamp:  metav1.NewTime(u.at), Window: metav1.Duration{Duration: u.window},
	}
	for _, c := range loads {
		if !c.ok {
			return nil
		}
		m.Containers = append(m.Containers, metricsv1beta1.ContainerMetrics{Name: c.name, Usage: c.list()})
	}
	slices.SortFunc(m.Containers, func(a, b metricsv1beta1.ContainerMetrics) int { return cmp.Compare(a.Name, b.Name) })
	return m
}

// list returns a load as resources, in the units that metrics-server writes.
func (l load) list() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(int64(l.cpu), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(l.memory/1024)*1024, resource.BinarySI),
	}
}
