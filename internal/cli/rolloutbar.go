package cli

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/url"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"petrel.dev/petrel/internal/cli/podphase"
	"petrel.dev/petrel/internal/cli/progress"
	"petrel.dev/petrel/internal/cli/pulls"
	"petrel.dev/petrel/internal/cli/screen"
)

// rolloutBar shows a rollout on a terminal, instead of a line for each step. A nil one shows nothing.
type rolloutBar struct {
	*progress.Bar
	out  io.Writer          // for lines above the bar
	wave string             // the last of them
	stop context.CancelFunc // ends the watch of pods
}

// bar returns the bar of a rollout, nil where lines are printed.
func (r *RolloutStatus) bar(ctx context.Context, c *conn, s *Streams, t target) *rolloutBar {
	if !r.Watch || !screen.Movable(s.Out) || !screen.Movable(s.Err) {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	b := &rolloutBar{progress.Start(s.Err, display(t.mapping, t.name), 0, progress.Things), nil, "", stop}
	b.out = b.Writer(s.Out)
	go func() {
		obj, err := c.get(ctx, t, c.namespace)
		if err != nil {
			return // who follows the rollout sees it too
		}
		if selector, err := selectorOf(obj); err == nil {
			follow := pulls.Follow(ctx, pulls.By(c.raw), b.Below)
			c.watchPods(ctx, selector, func(pods []*corev1.Pod) {
				b.Note(podphase.Summary(pods))
				follow(pods)
			})
		}
	}()
	return b
}

// show draws how far the rollout is. wave is the line of a staged rollout.
func (b *rolloutBar) show(obj *unstructured.Unstructured, wave string) {
	if wave != b.wave {
		b.wave = wave
		_, _ = io.WriteString(b.out, wave) // as with every line of a command
	}
	b.Set(rolledOut(obj))
}

func (b *rolloutBar) end() {
	if b != nil {
		b.stop()
		b.End()
	}
}

// rolledOut returns how many pods of a workload are new and available, and how many are wanted.
func rolledOut(obj *unstructured.Unstructured) (done, total int64) {
	number := func(fields ...string) int64 {
		n, _, _ := unstructured.NestedInt64(obj.Object, fields...)
		return n
	}
	total, updated, all, available := number("spec", "replicas"), number("status", "updatedReplicas"), number("status", "replicas"), number("status", "availableReplicas")
	if obj.GetKind() == "DaemonSet" {
		total = number("status", "desiredNumberScheduled")
		updated, all, available = number("status", "updatedNumberScheduled"), number("status", "currentNumberScheduled"), number("status", "numberAvailable")
	}
	// Which of the available ones are old is not in the status: as many as can be.
	return min(max(available-(all-updated), 0), updated, total), total
}

// watchPods calls f with the pods that a selector selects, now and after each change, until ctx ends or the watch does: it is for what is
// shown beside something else.
func (c *conn) watchPods(ctx context.Context, selector string, f func([]*corev1.Pod)) {
	const at = "/api/v1/namespaces/"
	q := url.Values{"labelSelector": {selector}}
	body, err := c.raw(ctx, at+c.namespace+"/pods", q, "application/json")
	if err != nil {
		return
	}
	defer body.Close()
	var list corev1.PodList
	if json.NewDecoder(body).Decode(&list) != nil {
		return
	}
	pods := map[string]*corev1.Pod{}
	for i := range list.Items {
		pods[list.Items[i].Name] = &list.Items[i]
	}
	report := func() { f(slices.Collect(maps.Values(pods))) }
	report()
	q.Set("watch", "true")
	q.Set("resourceVersion", list.ResourceVersion)
	_ = c.follow(ctx, at+c.namespace+"/pods", q, "application/json", func(event string, raw json.RawMessage) (bool, error) {
		var p corev1.Pod
		if err := json.Unmarshal(raw, &p); err != nil {
			return true, err
		}
		pods[p.Name] = &p
		if event == "DELETED" {
			delete(pods, p.Name)
		}
		report()
		return false, nil
	})
}
