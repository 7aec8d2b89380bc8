package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/polymorphichelpers"

	"petrel.dev/petrel/internal/cli/staged"
)

// Rollout follows and controls the rollout of a workload.
type Rollout struct {
	Status  RolloutStatus  `cmd:"" help:"Follow the rollout until it is done."`
	History RolloutHistory `cmd:"" help:"List the revisions."`
	Undo    RolloutUndo    `cmd:"" help:"Go back to an earlier revision."`
	Restart RolloutRestart `cmd:"" help:"Replace all pods, by the workload's strategy."`
	Pause   RolloutPause   `cmd:"" help:"Let changes gather without rolling out."`
	Resume  RolloutResume  `cmd:"" help:"Roll out what has gathered."`
	Approve RolloutApprove `cmd:"" help:"Let a staged rollout go on with its next wave."`
}

type oneWorkload struct {
	Cluster
	Args []string `arg:"" name:"what" help:"TYPE/NAME or TYPE NAME."`
}

func (o oneWorkload) open(ctx context.Context, s *Streams) (*conn, target, error) {
	c, err := o.connect(ctx, s)
	if err != nil {
		return nil, target{}, err
	}
	t, err := c.one(o.Args)
	return c, t, err
}

// RolloutStatus follows a rollout.
type RolloutStatus struct {
	oneWorkload
	Watch   bool          `short:"w" default:"true" negatable:"" help:"Wait until it is done."`
	Timeout time.Duration `help:"Give up after this time; 0 never." placeholder:"DURATION"`
}

// Run prints each step of the way.
func (r *RolloutStatus) Run(ctx context.Context, s *Streams) error {
	c, t, err := r.open(ctx, s)
	if err != nil {
		return err
	}
	viewer, err := polymorphichelpers.StatusViewerFor(t.mapping.GroupVersionKind.GroupKind())
	if err != nil {
		return noRollout(t)
	}
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("timed out after %s waiting for the rollout of %s", r.Timeout, display(t.mapping, t.name)))
		defer cancel()
	}
	last := ""
	bar := r.bar(ctx, c, s, t)
	defer bar.end()
	return c.until(ctx, t, func(obj *unstructured.Unstructured) (bool, error) {
		line, done, err := viewer.Status(obj, 0)
		if err != nil {
			return false, err
		}
		wave := staged.Line(obj)
		if bar != nil && !done {
			bar.show(obj, wave)
			return false, nil
		}
		bar.end()
		if line += wave; line != last {
			fmt.Fprint(s.Out, line)
			last = line
		}
		return done || !r.Watch, nil
	})
}

func noRollout(t target) error {
	return fmt.Errorf("%s has no rollout: Deployments, StatefulSets and DaemonSets have one", display(t.mapping, t.name))
}

// until calls f for the object as it is and after each change, until f returns done; it lists again when a watch ends.
func (c *conn) until(ctx context.Context, t target, f func(*unstructured.Unstructured) (done bool, err error)) error {
	ri := c.resource(t.mapping, c.namespace)
	for {
		obj, err := ri.Get(ctx, t.name, metav1.GetOptions{})
		if err != nil {
			return c.missing(ctx, t, c.namespace, waitError(ctx, err))
		}
		done, err := f(obj)
		if done || err != nil {
			return err
		}
		q := url.Values{"watch": {"true"}, "fieldSelector": {"metadata.name=" + t.name}, "resourceVersion": {obj.GetResourceVersion()}}
		finished := false
		err = c.follow(ctx, path(t.mapping, c.namespace, ""), q, "application/json", func(event string, raw json.RawMessage) (bool, error) {
			if event == "DELETED" {
				return true, fmt.Errorf("%s was deleted", display(t.mapping, t.name))
			}
			var o unstructured.Unstructured
			if err := o.UnmarshalJSON(raw); err != nil {
				return true, err
			}
			var err error
			finished, err = f(&o)
			return finished, err
		})
		if finished || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// RolloutHistory lists revisions.
type RolloutHistory struct {
	oneWorkload
	Revision int64 `help:"Show this revision's pod template." placeholder:"N"`
}

// Run prints them, oldest first.
func (r *RolloutHistory) Run(ctx context.Context, s *Streams) error {
	c, t, err := r.open(ctx, s)
	if err != nil {
		return err
	}
	h, err := c.history(ctx, t)
	if err != nil {
		return err
	}
	title := display(t.mapping, t.name)
	if r.Revision != 0 {
		if err := h.check(r.Revision); err != nil {
			return err
		}
		title += fmt.Sprintf(" with revision #%d", r.Revision)
	}
	text, err := h.viewer.ViewHistory(c.namespace, t.name, r.Revision)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "%s\n%s", title, text)
	return nil
}

// history holds the revisions of a workload.
type history struct {
	target
	client    kubernetes.Interface
	viewer    polymorphichelpers.HistoryViewer
	revisions []int64 // in order, the current one last
}

func (c *conn) history(ctx context.Context, t target) (*history, error) {
	client, err := c.clientset()
	if err != nil {
		return nil, err
	}
	viewer, err := polymorphichelpers.HistoryViewerFor(t.mapping.GroupVersionKind.GroupKind(), client)
	if err != nil {
		return nil, noRollout(t)
	}
	// The viewer's error would hide that the server has answered, and what.
	if _, err := c.get(ctx, t, c.namespace); err != nil {
		return nil, err
	}
	all, err := viewer.GetHistory(c.namespace, t.name)
	if err != nil {
		return nil, err
	}
	return &history{t, client, viewer, slices.Sorted(maps.Keys(all))}, nil
}

// check refuses a revision that is not in the history.
func (h *history) check(revision int64) error {
	if slices.Contains(h.revisions, revision) {
		return nil
	}
	have := strings.Trim(strings.ReplaceAll(fmt.Sprint(h.revisions), " ", ", "), "[]")
	return fmt.Errorf("%s has no revision %d; it has %s", display(h.mapping, h.name), revision, have)
}

// RolloutUndo goes back to an earlier revision.
type RolloutUndo struct {
	oneWorkload
	To int64 `name:"to-revision" help:"Revision to go back to. Default: the one before the current." placeholder:"N"`
}

// Run puts the old revision's pod template into the workload.
func (r *RolloutUndo) Run(ctx context.Context, s *Streams) error {
	c, t, err := r.open(ctx, s)
	if err != nil {
		return err
	}
	h, err := c.history(ctx, t)
	if err != nil {
		return err
	}
	to := r.To
	if to == 0 {
		if len(h.revisions) < 2 {
			return fmt.Errorf("%s has no earlier revision to go back to", display(t.mapping, t.name))
		}
		to = h.revisions[len(h.revisions)-2]
	}
	if err := h.check(to); err != nil {
		return err
	}
	rollback, err := polymorphichelpers.RollbackerFor(t.mapping.GroupVersionKind.GroupKind(), h.client)
	if err != nil {
		return noRollout(t)
	}
	obj := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: t.name}}
	done, err := rollback.Rollback(obj, nil, to, cmdutil.DryRunNone)
	if err != nil {
		return err
	}
	if done == "rolled back" {
		done += fmt.Sprintf(" to revision %d", to)
	}
	fmt.Fprintf(s.Out, "%s %s\n", display(t.mapping, t.name), done)
	return nil
}

// RolloutRestart replaces all pods.
type RolloutRestart struct{ oneWorkload }

// Run stamps the pod template with the time.
func (r *RolloutRestart) Run(ctx context.Context, s *Streams) error {
	patch := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339))
	return r.patch(ctx, s, patch, "restarted")
}

// RolloutPause pauses.
type RolloutPause struct{ oneWorkload }

// Run sets spec.paused.
func (r *RolloutPause) Run(ctx context.Context, s *Streams) error {
	return r.pause(ctx, s, true)
}

// RolloutResume resumes.
type RolloutResume struct{ oneWorkload }

// Run clears spec.paused.
func (r *RolloutResume) Run(ctx context.Context, s *Streams) error {
	return r.pause(ctx, s, false)
}

// pause sets or clears spec.paused. As in kubectl, it is an error when it is so already.
func (o oneWorkload) pause(ctx context.Context, s *Streams, paused bool) error {
	c, t, err := o.open(ctx, s)
	if err != nil {
		return err
	}
	obj, err := c.get(ctx, t, c.namespace)
	if err != nil {
		return err
	}
	if staged.Is(obj) {
		change, err := staged.Pause(obj, display(t.mapping, t.name), paused)
		return o.change(ctx, s, change, err)
	}
	if t.mapping.GroupVersionKind.Kind != "Deployment" {
		return errors.New("only Deployments and staged rollouts can be paused, not " + display(t.mapping, t.name))
	}
	now, _, _ := unstructured.NestedBool(obj.Object, "spec", "paused")
	switch {
	case now && paused:
		return errors.New(display(t.mapping, t.name) + " is paused already")
	case !now && !paused:
		return errors.New(display(t.mapping, t.name) + " is not paused")
	case paused:
		return o.patch(ctx, s, []byte(`{"spec":{"paused":true}}`), "paused")
	}
	return o.patch(ctx, s, []byte(`{"spec":{"paused":null}}`), "resumed")
}

// RolloutApprove approves waves of a staged rollout (docs/fleet-rollouts.md).
type RolloutApprove struct {
	oneWorkload
	All bool `help:"Approve all waves that follow."`
}

// Run writes the approval into the workload's annotations.
func (r *RolloutApprove) Run(ctx context.Context, s *Streams) error {
	c, t, err := r.open(ctx, s)
	if err != nil {
		return err
	}
	obj, err := c.get(ctx, t, c.namespace)
	if err != nil {
		return err
	}
	change, err := staged.Approve(obj, display(t.mapping, t.name), r.All)
	return r.change(ctx, s, change, err)
}

// change makes a change of a staged rollout, unless err says why there is none.
func (o oneWorkload) change(ctx context.Context, s *Streams, change staged.Change, err error) error {
	if err != nil {
		return err
	}
	patch, err := change.Patch()
	if err != nil {
		return err
	}
	return o.patch(ctx, s, patch, change.Done)
}

func (o oneWorkload) patch(ctx context.Context, s *Streams, patch []byte, verb string) error {
	c, t, err := o.open(ctx, s)
	if err != nil {
		return err
	}
	if !hasTemplate(t.mapping) {
		return errors.New(display(t.mapping, t.name) + " has no pod template")
	}
	if _, err := c.resource(t.mapping, c.namespace).Patch(ctx, t.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager}); err != nil {
		return c.missing(ctx, t, c.namespace, err)
	}
	fmt.Fprintf(s.Out, "%s %s\n", display(t.mapping, t.name), verb)
	return nil
}

func hasTemplate(m *meta.RESTMapping) bool {
	return strings.HasSuffix(m.GroupVersionKind.Group, "apps")
}
