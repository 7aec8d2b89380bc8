package cli

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// Scale sets how many pods a workload has.
type Scale struct {
	Cluster
	Args     []string `arg:"" name:"what" help:"TYPE/NAME..., or TYPE NAME."`
	Replicas int64    `required:"" help:"How many pods." placeholder:"N"`
	Current  int64    `name:"current-replicas" default:"-1" help:"Only when it has this many now." placeholder:"N"`
}

// Run changes the scale subresource.
func (sc *Scale) Run(ctx context.Context, s *Streams) error {
	if sc.Replicas < 0 {
		return fmt.Errorf("--replicas=%d: a workload cannot have less than 0 pods", sc.Replicas)
	}
	c, err := sc.connect(ctx, s)
	if err != nil {
		return err
	}
	ts, err := c.targets(sc.Args)
	if err != nil {
		return err
	}
	for _, t := range ts {
		if t.name == "" {
			return fmt.Errorf("which %s? write TYPE/NAME", t.mapping.Resource.Resource)
		}
		ri := c.resource(t.mapping, c.namespace)
		if sc.Current >= 0 {
			now, err := ri.Get(ctx, t.name, metav1.GetOptions{}, "scale")
			if err != nil {
				return c.missing(ctx, t, c.namespace, err)
			}
			if n, _, _ := unstructured.NestedInt64(now.Object, "spec", "replicas"); n != sc.Current {
				return fmt.Errorf("%s has %d replicas, not the %d of --current-replicas; nothing was changed", display(t.mapping, t.name), n, sc.Current)
			}
		}
		patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, sc.Replicas)
		if _, err := ri.Patch(ctx, t.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager}, "scale"); err != nil {
			var st apierrors.APIStatus
			if isNotFound(err) && errors.As(err, &st) && (st.Status().Details == nil || st.Status().Details.Name == "") { // not the object: its type has no scale
				return fmt.Errorf("%s cannot be scaled: it is no workload with replicas", display(t.mapping, t.name))
			}
			return c.missing(ctx, t, c.namespace, err)
		}
		fmt.Fprintf(s.Out, "%s scaled\n", display(t.mapping, t.name))
	}
	return nil
}
