package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/kubectl/pkg/drain"

	"petrel.dev/petrel/internal/cli/progress"
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
		return c.missing(ctx, target{mapping: &meta.RESTMapping{Resource: nodeResource, Scope: meta.RESTScopeRoot}, name: name}, "", err)
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
	Force            bool          `help:"Also evict pods that no controller will create again."`
	IgnoreDaemonSets bool          `name:"ignore-daemonsets" help:"Leave pods of DaemonSets where they are."`
	DeleteEmptyDir   bool          `name:"delete-emptydir-data" help:"Also evict pods whose emptyDir data is lost by it."`
	GracePeriod      int           `default:"-1" help:"Seconds that each pod gets to stop. Default: its own." placeholder:"SECONDS"`
	Timeout          time.Duration `help:"Give up after this time; 0 never." placeholder:"DURATION"`
	PodSelector      string        `help:"Only pods with these labels." placeholder:"SELECTOR"`
}

// Run checks all pods of a node first: when one may not be evicted, none is. What may be evicted, what a disruption budget
// refuses for now and when a pod is gone is decided by kubectl's own drain.
func (d *Drain) Run(ctx context.Context, s *Streams) error {
	c, err := d.connect(ctx, s)
	if err != nil {
		return err
	}
	client, err := c.clientset()
	if err != nil {
		return err
	}
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d.Timeout, fmt.Errorf("timed out after %s with pods still on the node", d.Timeout))
		defer cancel()
	}
	helper := &drain.Helper{
		Ctx: ctx, Client: client,
		Force: d.Force, IgnoreAllDaemonSets: d.IgnoreDaemonSets, DeleteEmptyDirData: d.DeleteEmptyDir,
		GracePeriodSeconds: d.GracePeriod, PodSelector: d.PodSelector,
		EvictErrorRetryDelay: 5 * time.Second, // what a disruption budget refuses now it may grant when another pod is ready
		Out:                  s.Out, ErrOut: s.Err,
	}
	for _, name := range d.Nodes {
		name = strings.TrimPrefix(name, "node/")
		if err := c.cordon(ctx, s, name, true); err != nil {
			return err
		}
		if err := evictAll(helper, s, name); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "node/%s drained\n", name)
	}
	return nil
}

// evictAll evicts the pods of a node and waits until they are gone.
func evictAll(helper *drain.Helper, s *Streams, node string) error {
	pods, refusals := helper.GetPodsForDeletion(node)
	if len(refusals) > 0 {
		return fmt.Errorf("node %s is cordoned, but no pod was evicted: %w", node, errors.Join(refusals...))
	}
	if warnings := pods.Warnings(); warnings != "" {
		fmt.Fprintf(s.Err, "Warning: %s\n", warnings)
	}
	all := pods.Pods()
	bar := progress.Start(s.Err, "draining "+node, int64(len(all)), progress.Things)
	defer bar.End()
	out, helped := bar.Writer(s.Out), *helper
	helped.Out, helped.ErrOut = out, bar.Writer(s.Err)
	helped.OnPodDeletionOrEvictionFinished = func(p *corev1.Pod, _ bool, err error) {
		if err == nil {
			fmt.Fprintf(out, "pod/%s evicted\n", p.Name)
			bar.Add(1)
		}
	}
	err := helped.DeleteOrEvictPods(all)
	if several, ok := err.(utilerrors.Aggregate); ok {
		err = errors.Join(several.Errors()...)
	}
	if err != nil && helper.Ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(helper.Ctx), err)
	}
	return err
}
