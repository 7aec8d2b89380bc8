package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Cordon keeps new pods off nodes.
type Cordon struct {
	Cluster
	Nodes []string `arg:"" help:"Names of nodes."`
}

// Run marks them unschedulable.
func (n *Cordon) Run(ctx context.Context, s *Streams) error {
	return cordon(ctx, n.Cluster, s, n.Nodes, true)
}

// Uncordon lets new pods onto nodes again.
type Uncordon struct {
	Cluster
	Nodes []string `arg:"" help:"Names of nodes."`
}

// Run marks them schedulable.
func (n *Uncordon) Run(ctx context.Context, s *Streams) error {
	return cordon(ctx, n.Cluster, s, n.Nodes, false)
}

func cordon(ctx context.Context, cl Cluster, s *Streams, nodes []string, on bool) error {
	c, err := cl.connect(ctx, s)
	if err != nil {
		return err
	}
	for _, name := range nodes {
		if err := c.cordon(ctx, s, strings.TrimPrefix(name, "node/"), on); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) cordon(ctx context.Context, s *Streams, name string, on bool) error {
	ri := c.dynamic.Resource(nodeResource)
	node, err := ri.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	verb := map[bool]string{true: "cordoned", false: "uncordoned"}[on]
	if now, _, _ := unstructured.NestedBool(node.Object, "spec", "unschedulable"); now == on {
		fmt.Fprintf(s.Out, "node/%s already %s\n", name, verb)
		return nil
	}
	patch := `{"spec":{"unschedulable":true}}`
	if !on {
		patch = `{"spec":{"unschedulable":null}}`
	}
	if _, err := ri.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: manager}); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "node/%s %s\n", name, verb)
	return nil
}

// Drain empties nodes: cordons them and evicts their pods.
type Drain struct {
	Cluster
	Nodes            []string      `arg:"" help:"Names of nodes."`
	Force            bool          `help:"Also evict pods that no controller will make anew."`
	IgnoreDaemonSets bool          `name:"ignore-daemonsets" help:"Leave pods of DaemonSets where they are."`
	DeleteEmptyDir   bool          `name:"delete-emptydir-data" help:"Also evict pods whose emptyDir data is lost by it."`
	GracePeriod      int64         `default:"-1" help:"Seconds that each pod gets to stop. Default: its own." placeholder:"SECONDS"`
	Timeout          time.Duration `help:"Give up after this time; 0 never." placeholder:"DURATION"`
	PodSelector      string        `help:"Only pods with these labels." placeholder:"SELECTOR"`
}

// Run checks all pods first: when one may not be evicted, none is.
func (d *Drain) Run(ctx context.Context, s *Streams) error {
	c, err := d.connect(ctx, s)
	if err != nil {
		return err
	}
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d.Timeout, fmt.Errorf("timed out after %s with pods still on the node", d.Timeout))
		defer cancel()
	}
	for _, name := range d.Nodes {
		if err := d.node(ctx, c, s, strings.TrimPrefix(name, "node/")); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "node/%s drained\n", name)
	}
	return nil
}

func (d *Drain) node(ctx context.Context, c *conn, s *Streams, name string) error {
	if err := c.cordon(ctx, s, name, true); err != nil {
		return err
	}
	list, err := c.dynamic.Resource(podResource).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name, LabelSelector: d.PodSelector})
	if err != nil {
		return err
	}
	var evict []*corev1.Pod
	var refusals []error
	for i := range list.Items {
		pod, err := toPod(&list.Items[i])
		if err != nil {
			return err
		}
		leave, refusal := d.judge(pod)
		switch {
		case refusal != "":
			refusals = append(refusals, fmt.Errorf("pod %s/%s %s", pod.Namespace, pod.Name, refusal))
		case leave:
			fmt.Fprintf(s.Err, "Warning: ignoring DaemonSet-managed pod %s/%s\n", pod.Namespace, pod.Name)
		default:
			evict = append(evict, pod)
		}
	}
	if len(refusals) > 0 {
		return fmt.Errorf("node %s is cordoned, but no pod was evicted: %w", name, errors.Join(refusals...))
	}
	for _, p := range evict {
		fmt.Fprintf(s.Out, "evicting pod %s/%s\n", p.Namespace, p.Name)
		if err := d.evict(ctx, c, s, p); err != nil {
			return err
		}
	}
	mapping, err := c.mapping(podResource)
	if err != nil {
		return err
	}
	for _, p := range evict {
		if err := c.waitGone(ctx, mapping, p.Namespace, p.Name, p.UID); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "pod/%s evicted\n", p.Name)
	}
	return nil
}

// judge says whether a pod stays by right, or why it may not be evicted.
func (d *Drain) judge(p *corev1.Pod) (leave bool, refusal string) {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil {
		return false, ""
	}
	owner := metav1.GetControllerOf(p)
	if owner != nil && owner.Kind == "DaemonSet" {
		if d.IgnoreDaemonSets {
			return true, ""
		}
		return false, "belongs to a DaemonSet, which would put it back; say --ignore-daemonsets to leave it"
	}
	if owner == nil && !d.Force {
		return false, "has no controller that would make it anew; say --force to lose it"
	}
	for _, v := range p.Spec.Volumes {
		if v.EmptyDir != nil && !d.DeleteEmptyDir {
			return false, "keeps data in an emptyDir; say --delete-emptydir-data to lose it"
		}
	}
	return false, ""
}

func (d *Drain) evict(ctx context.Context, c *conn, s *Streams, p *corev1.Pod) error {
	ev := &policyv1.Eviction{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "Eviction"},
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace},
	}
	if d.GracePeriod >= 0 {
		ev.DeleteOptions = &metav1.DeleteOptions{GracePeriodSeconds: &d.GracePeriod}
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(ev)
	if err != nil {
		return err
	}
	const pause = 5 * time.Second // what a disruption budget refuses now it may grant when another pod is ready
	for {
		_, err := c.dynamic.Resource(podResource).Namespace(p.Namespace).Create(ctx, &unstructured.Unstructured{Object: content}, metav1.CreateOptions{}, "eviction")
		switch {
		case err == nil, apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsTooManyRequests(err):
			return waitError(ctx, err)
		}
		fmt.Fprintf(s.Err, "pod %s/%s: %s; trying again in %s\n", p.Namespace, p.Name, Message(err), pause)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}
