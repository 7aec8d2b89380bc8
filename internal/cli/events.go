package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"
)

// Events lists what happened, oldest first.
type Events struct {
	Cluster
	For           string   `help:"Only of this object: TYPE/NAME." placeholder:"TYPE/NAME"`
	Types         []string `help:"Only of these types: Normal, Warning." placeholder:"TYPE"`
	AllNamespaces bool     `short:"A" help:"Of all namespaces."`
	NoHeaders     bool     `help:"Without the header line."`
}

// Run prints them in the order in which they were last seen.
func (e *Events) Run(ctx context.Context, s *Streams) error {
	c, err := e.connect(ctx, s)
	if err != nil {
		return err
	}
	ns := c.namespace
	if e.AllNamespaces {
		ns = ""
	}
	selector := ""
	if e.For != "" {
		t, err := c.one([]string{e.For})
		if err != nil {
			return err
		}
		selector = "involvedObject.kind=" + t.mapping.GroupVersionKind.Kind + ",involvedObject.name=" + t.name
	}
	events, err := c.events(ctx, ns, selector)
	if err != nil {
		return err
	}
	if len(e.Types) > 0 {
		events = slices.DeleteFunc(events, func(ev corev1.Event) bool {
			return !slices.ContainsFunc(e.Types, func(t string) bool { return strings.EqualFold(t, ev.Type) })
		})
	}
	if len(events) == 0 {
		fmt.Fprintln(s.Err, "No events found")
		return nil
	}
	out := printers.GetNewTabWriter(s.Out)
	if !e.NoHeaders {
		if ns == "" {
			fmt.Fprint(out, "NAMESPACE\t")
		}
		fmt.Fprintln(out, "LAST SEEN\tTYPE\tREASON\tOBJECT\tMESSAGE")
	}
	for _, ev := range events {
		if ns == "" {
			fmt.Fprint(out, ev.Namespace, "\t")
		}
		object := strings.ToLower(ev.InvolvedObject.Kind) + "/" + ev.InvolvedObject.Name
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", eventAge(&ev), ev.Type, ev.Reason, object, strings.TrimSpace(ev.Message))
	}
	return out.Flush()
}

func (c *conn) events(ctx context.Context, ns, fieldSelector string) ([]corev1.Event, error) {
	list, err := c.dynamic.Resource(corev1.SchemeGroupVersion.WithResource("events")).Namespace(ns).List(ctx, metav1.ListOptions{FieldSelector: fieldSelector})
	if err != nil {
		return nil, err
	}
	events := make([]corev1.Event, len(list.Items))
	for i := range list.Items {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &events[i]); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return lastSeen(&a).Compare(lastSeen(&b)) })
	return events, nil
}

func lastSeen(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}

// eventAge returns "3s", or "3s (x4 over 2m)" for one that came again.
func eventAge(e *corev1.Event) string {
	age := duration.HumanDuration(time.Since(lastSeen(e)))
	count := e.Count
	if e.Series != nil {
		count = e.Series.Count
	}
	if count > 1 {
		first := e.FirstTimestamp.Time
		if first.IsZero() {
			first = e.EventTime.Time
		}
		return fmt.Sprintf("%s (x%d over %s)", age, count, duration.HumanDuration(time.Since(first)))
	}
	return age
}
