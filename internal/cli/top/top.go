// Package top shows what nodes and pods use, from metrics.k8s.io. The columns are those of kubectl top.
package top

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/cli/message"
	"petrel.dev/petrel/internal/cli/screen"
)

// Top shows what is used.
type Top struct {
	Nodes Nodes `cmd:"" aliases:"node,no" help:"CPU and memory that nodes use, and how much of what they have."`
	Pods  Pods  `cmd:"" aliases:"pod,po" help:"CPU and memory that pods use."`
}

// view is what both have: which objects, and how they are shown.
type view struct {
	cli.Cluster
	Selector  string        `short:"l" help:"Only those with these labels." placeholder:"SELECTOR"`
	SortBy    string        `enum:",cpu,memory" default:"" help:"The greatest use of cpu or memory first. Default: by name." placeholder:"WHAT"`
	NoHeaders bool          `help:"Without the header line."`
	Watch     bool          `short:"w" help:"Show again every --interval; on a terminal in the same place."`
	Interval  time.Duration `default:"5s" help:"How often, with --watch. Each time the nodes are asked." placeholder:"DURATION"`
}

var (
	nodeResource       = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	nodeMetricResource = metricsv1beta1.SchemeGroupVersion.WithResource("nodes")
	podMetricResource  = metricsv1beta1.SchemeGroupVersion.WithResource("pods")
)

// show writes a frame once, or with --watch until ctx ends. An error ends it only when nothing has been shown yet: a link that is away
// for a minute comes back.
func (v *view) show(ctx context.Context, s *cli.Streams, frame func(w io.Writer) error) error {
	if !v.Watch {
		return frame(s.Out)
	}
	if v.Interval <= 0 {
		return fmt.Errorf("--interval %s is no time to wait: give more than 0", v.Interval)
	}
	tick := time.NewTicker(v.Interval)
	defer tick.Stop()
	for first := true; ; first = false {
		var text bytes.Buffer
		if err := frame(&text); err != nil {
			if first || ctx.Err() != nil {
				return err
			}
			fmt.Fprintln(&text, "petrel:", message.Of(err))
		}
		if width, height, _ := screen.Size(s.Out); screen.Movable(s.Out) {
			screen.Redraw(s.Out, text.String(), width, height, first)
		} else {
			if !first {
				fmt.Fprintln(s.Out)
			}
			if _, err := s.Out.Write(text.Bytes()); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// list returns the named object, or all that the selectors select.
func list(ctx context.Context, c dynamic.ResourceInterface, name string, opts metav1.ListOptions) ([]unstructured.Unstructured, error) {
	if name != "" {
		o, err := c.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return []unstructured.Unstructured{*o}, nil
	}
	l, err := c.List(ctx, opts)
	if err != nil {
		return nil, err
	}
	return l.Items, nil
}

func convert[T any](items []unstructured.Unstructured) ([]T, error) {
	out := make([]T, len(items))
	for i := range items {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(items[i].Object, &out[i]); err != nil {
			return nil, fmt.Errorf("%s %s: %w", items[i].GetKind(), items[i].GetName(), err)
		}
	}
	return out, nil
}
