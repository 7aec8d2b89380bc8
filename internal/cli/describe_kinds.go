package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/internal/kube"
)

// describeKind prints the kinds that people look at most in an order of its own; false: it knows no better than the
// object's own fields.
func (c *conn) describeKind(ctx context.Context, w *tabwriter.Writer, o *unstructured.Unstructured) (bool, error) {
	switch o.GroupVersionKind() {
	case corev1.SchemeGroupVersion.WithKind("Pod"):
		var p corev1.Pod
		if err := convert(o, &p); err != nil {
			return false, err
		}
		describePod(w, &p)
	case corev1.SchemeGroupVersion.WithKind("Node"):
		var n corev1.Node
		if err := convert(o, &n); err != nil {
			return false, err
		}
		pods, err := listOf[corev1.Pod](ctx, c, corev1.SchemeGroupVersion.WithResource("pods"), "", metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.Name})
		if err != nil {
			return false, err
		}
		describeNode(w, &n, pods)
	case appsv1.SchemeGroupVersion.WithKind("Deployment"):
		var d appsv1.Deployment
		if err := convert(o, &d); err != nil {
			return false, err
		}
		sets, err := listOf[appsv1.ReplicaSet](ctx, c, appsv1.SchemeGroupVersion.WithResource("replicasets"), d.Namespace, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		describeDeployment(w, &d, slices.DeleteFunc(sets, func(rs appsv1.ReplicaSet) bool { return !metav1.IsControlledBy(&rs, &d) }))
	case corev1.SchemeGroupVersion.WithKind("Service"):
		var s corev1.Service
		if err := convert(o, &s); err != nil {
			return false, err
		}
		slicesOf, err := listOf[discoveryv1.EndpointSlice](ctx, c, discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), s.Namespace,
			metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + s.Name})
		if err != nil {
			return false, err
		}
		describeService(w, &s, slicesOf)
	default:
		return false, nil
	}
	return true, nil
}

func convert(o *unstructured.Unstructured, into any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into)
}

func listOf[T any](ctx context.Context, c *conn, gvr schema.GroupVersionResource, ns string, opts metav1.ListOptions) ([]T, error) {
	list, err := c.dynamic.Resource(gvr).Namespace(ns).List(ctx, opts)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(list.Items))
	for i := range list.Items {
		if err := convert(&list.Items[i], &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func describeNode(w io.Writer, n *corev1.Node, pods []corev1.Pod) {
	status := "NotReady"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		switch c.Status {
		case corev1.ConditionTrue:
			status = "Ready"
		case corev1.ConditionUnknown:
			status = "NotReady (no word from it since " + age(c.LastTransitionTime.Time) + ")"
		}
	}
	if n.Spec.Unschedulable {
		status += ", cordoned: no new pods"
	}
	fmt.Fprintf(w, "Status:\t%s\n", status)
	addresses := make([]string, len(n.Status.Addresses))
	for i, a := range n.Status.Addresses {
		addresses[i] = fmt.Sprintf("%s (%s)", a.Address, a.Type)
	}
	line(w, "Addresses", strings.Join(addresses, ", "))
	taints := make([]string, len(n.Spec.Taints))
	for i, t := range n.Spec.Taints {
		taints[i] = t.ToString()
	}
	fmt.Fprintf(w, "Taints:\t%s\n", orNone(strings.Join(taints, ", ")))
	line(w, "Pod Networks", strings.Join(n.Spec.PodCIDRs, ", "))
	i := n.Status.NodeInfo
	line(w, "System", strings.TrimPrefix(i.OSImage+", kernel "+i.KernelVersion+", "+i.Architecture, ", kernel , "))
	line(w, "Runtime", i.ContainerRuntimeVersion)
	line(w, "Agent", i.KubeletVersion)
	rows := [][]string{{"Type", "Status", "Since", "Reason", "Message"}}
	for _, c := range n.Status.Conditions {
		rows = append(rows, []string{string(c.Type), string(c.Status), age(c.LastTransitionTime.Time), c.Reason, c.Message})
	}
	table(w, "Conditions", rows)

	asked := map[corev1.ResourceName]*resource.Quantity{}
	podRows := [][]string{{"Namespace", "Name", "Status", "CPU asked", "Memory asked", "Age"}}
	for _, p := range pods {
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		requests := kube.PodRequests(&p) // as the scheduler counts them
		for name, q := range requests {
			if asked[name] == nil {
				asked[name] = &resource.Quantity{}
			}
			asked[name].Add(q)
		}
		podRows = append(podRows, []string{p.Namespace, p.Name, podStatus(&p), requests.Cpu().String(), requests.Memory().String(), age(p.CreationTimestamp.Time)})
	}
	rows = [][]string{{"Resource", "Capacity", "Allocatable", "Asked by pods"}}
	for _, name := range sortedKeys(n.Status.Capacity) {
		total, free := n.Status.Capacity[name], n.Status.Allocatable[name]
		used := ""
		switch {
		case name == corev1.ResourcePods:
			used = strconv.Itoa(len(podRows) - 1)
		case asked[name] != nil && !free.IsZero():
			used = fmt.Sprintf("%s (%d%%)", asked[name], int64(100*asked[name].AsApproximateFloat64()/free.AsApproximateFloat64()))
		}
		rows = append(rows, []string{string(name), total.String(), free.String(), used})
	}
	table(w, "Resources", rows)
	table(w, fmt.Sprintf("Pods (%d)", len(podRows)-1), podRows)
}

func describeDeployment(w io.Writer, d *appsv1.Deployment, sets []appsv1.ReplicaSet) {
	desired := int32(1)
	if d.Spec.Replicas != nil {
		desired = *d.Spec.Replicas
	}
	st := d.Status
	fmt.Fprintf(w, "Replicas:\t%d desired, %d updated, %d in all, %d available, %d unavailable\n", desired, st.UpdatedReplicas, st.Replicas, st.AvailableReplicas, st.UnavailableReplicas)
	if d.Spec.Paused {
		fmt.Fprintf(w, "Paused:\ttrue; petrel rollout resume deployment/%s goes on\n", d.Name)
	}
	fmt.Fprintf(w, "Selector:\t%s\n", metav1.FormatLabelSelector(d.Spec.Selector))
	strategy := string(d.Spec.Strategy.Type)
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		strategy += fmt.Sprintf(" (at most %s more, %s unavailable)", r.MaxSurge, r.MaxUnavailable)
	}
	fmt.Fprintf(w, "Strategy:\t%s\n", strategy)
	fmt.Fprintln(w, "Containers of a pod:")
	containers(w, d.Spec.Template.Spec.InitContainers, nil, false)
	containers(w, d.Spec.Template.Spec.Containers, nil, false)
	podTemplateRest(w, &d.Spec.Template.Spec)
	rows := [][]string{{"Type", "Status", "Since", "Reason", "Message"}}
	for _, c := range st.Conditions {
		rows = append(rows, []string{string(c.Type), string(c.Status), age(c.LastTransitionTime.Time), c.Reason, c.Message})
	}
	table(w, "Conditions", rows)
	const revision = "deployment.kubernetes.io/revision"
	slices.SortFunc(sets, func(a, b appsv1.ReplicaSet) int {
		x, _ := strconv.Atoi(a.Annotations[revision])
		y, _ := strconv.Atoi(b.Annotations[revision])
		return y - x
	})
	rows = [][]string{{"Revision", "Name", "Desired", "Ready", "Age"}}
	for _, rs := range sets {
		want := int32(1)
		if rs.Spec.Replicas != nil {
			want = *rs.Spec.Replicas
		}
		rows = append(rows, []string{rs.Annotations[revision], rs.Name, fmt.Sprint(want), fmt.Sprint(rs.Status.ReadyReplicas), age(rs.CreationTimestamp.Time)})
	}
	table(w, "ReplicaSets", rows)
}

func describeService(w io.Writer, s *corev1.Service, endpoints []discoveryv1.EndpointSlice) {
	fmt.Fprintf(w, "Type:\t%s\n", s.Spec.Type)
	line(w, "IP", strings.Join(s.Spec.ClusterIPs, ", "))
	line(w, "External Name", s.Spec.ExternalName)
	line(w, "External IPs", strings.Join(s.Spec.ExternalIPs, ", "))
	fmt.Fprintf(w, "Selector:\t%s\n", orNone(metav1.FormatLabelSelector(metav1.SetAsLabelSelector(s.Spec.Selector))))
	line(w, "Session Affinity", string(s.Spec.SessionAffinity))
	rows := [][]string{{"Name", "Port", "Sends To", "Port of Nodes", "Endpoints"}}
	for _, p := range s.Spec.Ports {
		var ends []string
		for _, slice := range endpoints {
			for _, ep := range slice.Ports {
				if ep.Port == nil || ep.Name != nil && *ep.Name != p.Name {
					continue
				}
				for _, e := range slice.Endpoints {
					text := ""
					if e.Conditions.Ready != nil && !*e.Conditions.Ready {
						text = " (not ready)"
					}
					for _, a := range e.Addresses {
						ends = append(ends, fmt.Sprintf("%s:%d%s", a, *ep.Port, text))
					}
				}
			}
		}
		nodePort := ""
		if p.NodePort != 0 {
			nodePort = fmt.Sprint(p.NodePort)
		}
		rows = append(rows, []string{orNone(p.Name), fmt.Sprintf("%d/%s", p.Port, p.Protocol), p.TargetPort.String(), nodePort, orNone(strings.Join(ends, ", "))})
	}
	table(w, "Ports", rows)
}

// table prints rows under a title, the first row being the header; nothing but "<none>" when there are no others.
// Columns that are empty throughout are left out.
func table(w io.Writer, name string, rows [][]string) {
	if len(rows) < 2 {
		fmt.Fprintf(w, "%s:\t<none>\n", name)
		return
	}
	fmt.Fprintf(w, "%s:\n", name)
	own := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	used := make([]bool, len(rows[0]))
	for _, r := range rows[1:] {
		for i, cell := range r {
			used[i] = used[i] || cell != ""
		}
	}
	for _, r := range rows {
		var cells []string
		for i, cell := range r {
			if used[i] {
				cells = append(cells, strings.ReplaceAll(cell, "\n", " "))
			}
		}
		fmt.Fprintf(own, "  %s\n", strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	_ = own.Flush() // into another tabwriter's memory
}
