package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/printers"

	"petrel.dev/petrel/internal/kube"
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
				return err
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
			return err
		}
		fmt.Fprintf(s.Out, "%s scaled\n", display(t.mapping, t.name))
	}
	return nil
}

// Rollout follows and steers how a Deployment changes over.
type Rollout struct {
	Status  RolloutStatus  `cmd:"" help:"Follow the rollout until it is done."`
	History RolloutHistory `cmd:"" help:"List the revisions."`
	Undo    RolloutUndo    `cmd:"" help:"Go back to an earlier revision."`
	Restart RolloutRestart `cmd:"" help:"Replace all pods, by the workload's strategy."`
	Pause   RolloutPause   `cmd:"" help:"Let changes gather without rolling out."`
	Resume  RolloutResume  `cmd:"" help:"Roll out what has gathered."`
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
	if t.mapping.GroupVersionKind.Kind != "Deployment" {
		return fmt.Errorf("rollout status knows Deployments only, not %s", t.mapping.GroupVersionKind.Kind)
	}
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("timed out after %s waiting for the rollout of %s", r.Timeout, display(t.mapping, t.name)))
		defer cancel()
	}
	last := ""
	return c.until(ctx, t, func(obj *unstructured.Unstructured) (bool, error) {
		var d appsv1.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &d); err != nil {
			return false, err
		}
		line, done, err := rolloutStep(&d)
		if err != nil {
			return false, err
		}
		if line != last {
			fmt.Fprintln(s.Out, line)
			last = line
		}
		return done || !r.Watch, nil
	})
}

// rolloutStep tells where a Deployment is on its way, in the words that scripts know from kubectl.
func rolloutStep(d *appsv1.Deployment) (line string, done bool, err error) {
	if d.Generation > d.Status.ObservedGeneration {
		return "Waiting for deployment spec update to be observed...", false, nil
	}
	if c := kube.FindCondition(d.Status.Conditions, appsv1.DeploymentProgressing); c != nil && c.Reason == "ProgressDeadlineExceeded" {
		return "", false, fmt.Errorf("deployment %q exceeded its progress deadline", d.Name)
	}
	st := d.Status
	switch {
	case d.Spec.Replicas != nil && st.UpdatedReplicas < *d.Spec.Replicas:
		return fmt.Sprintf("Waiting for deployment %q rollout to finish: %d out of %d new replicas have been updated...", d.Name, st.UpdatedReplicas, *d.Spec.Replicas), false, nil
	case st.Replicas > st.UpdatedReplicas:
		return fmt.Sprintf("Waiting for deployment %q rollout to finish: %d old replicas are pending termination...", d.Name, st.Replicas-st.UpdatedReplicas), false, nil
	case st.AvailableReplicas < st.UpdatedReplicas:
		return fmt.Sprintf("Waiting for deployment %q rollout to finish: %d of %d updated replicas are available...", d.Name, st.AvailableReplicas, st.UpdatedReplicas), false, nil
	}
	return fmt.Sprintf("deployment %q successfully rolled out", d.Name), true, nil
}

// until calls f for the object as it is and after each change, until f is content; it lists again when a watch ends.
func (c *conn) until(ctx context.Context, t target, f func(*unstructured.Unstructured) (done bool, err error)) error {
	ri := c.resource(t.mapping, c.namespace)
	for {
		obj, err := ri.Get(ctx, t.name, metav1.GetOptions{})
		if err != nil {
			return waitError(ctx, err)
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

// revisionsOf lists a Deployment's ReplicaSets by revision, oldest first.
func (c *conn) revisionsOf(ctx context.Context, t target) (*unstructured.Unstructured, map[int64]*appsv1.ReplicaSet, []int64, error) {
	d, err := c.resource(t.mapping, c.namespace).Get(ctx, t.name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, nil, err
	}
	list, err := c.dynamic.Resource(appsv1.SchemeGroupVersion.WithResource("replicasets")).Namespace(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, nil, err
	}
	sets := map[int64]*appsv1.ReplicaSet{}
	var order []int64
	for i := range list.Items {
		var rs appsv1.ReplicaSet
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &rs); err != nil {
			return nil, nil, nil, err
		}
		rev, err := strconv.ParseInt(rs.Annotations["deployment.kubernetes.io/revision"], 10, 64)
		if !metav1.IsControlledBy(&rs, d) || err != nil {
			continue
		}
		sets[rev] = &rs
		order = append(order, rev)
	}
	slices.Sort(order)
	return d, sets, order, nil
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
	_, sets, order, err := c.revisionsOf(ctx, t)
	if err != nil {
		return err
	}
	if r.Revision != 0 {
		rs, ok := sets[r.Revision]
		if !ok {
			return noRevision(t, r.Revision, order)
		}
		fmt.Fprintf(s.Out, "%s with revision #%d\n", display(t.mapping, t.name), r.Revision)
		out := tabwriter.NewWriter(s.Out, 0, 8, 2, ' ', 0)
		printMap(out, "Labels", rs.Spec.Template.Labels)
		printMap(out, "Annotations", rs.Spec.Template.Annotations)
		fmt.Fprintln(out, "Containers:")
		containers(out, rs.Spec.Template.Spec.InitContainers, nil, false)
		containers(out, rs.Spec.Template.Spec.Containers, nil, false)
		podTemplateRest(out, &rs.Spec.Template.Spec)
		return out.Flush()
	}
	fmt.Fprintln(s.Out, display(t.mapping, t.name))
	out := printers.GetNewTabWriter(s.Out)
	fmt.Fprintln(out, "REVISION\tREPLICASET\tCHANGE-CAUSE")
	for _, rev := range order {
		cause := sets[rev].Annotations["kubernetes.io/change-cause"]
		if cause == "" {
			cause = "<none>"
		}
		fmt.Fprintf(out, "%d\t%s\t%s\n", rev, sets[rev].Name, cause)
	}
	return out.Flush()
}

func noRevision(t target, rev int64, have []int64) error {
	return fmt.Errorf("%s has no revision %d; it has %s", display(t.mapping, t.name), rev, strings.Trim(strings.ReplaceAll(fmt.Sprint(have), " ", ", "), "[]"))
}

// RolloutUndo goes back.
type RolloutUndo struct {
	oneWorkload
	To int64 `name:"to-revision" help:"Revision to go back to. Default: the one before the current." placeholder:"N"`
}

// Run puts the old revision's pod template into the Deployment.
func (r *RolloutUndo) Run(ctx context.Context, s *Streams) error {
	c, t, err := r.open(ctx, s)
	if err != nil {
		return err
	}
	_, sets, order, err := c.revisionsOf(ctx, t)
	if err != nil {
		return err
	}
	to := r.To
	if to == 0 {
		if len(order) < 2 {
			return fmt.Errorf("%s has no earlier revision to go back to", display(t.mapping, t.name))
		}
		to = order[len(order)-2]
	}
	rs, ok := sets[to]
	if !ok {
		return noRevision(t, to, order)
	}
	template := rs.Spec.Template.DeepCopy()
	delete(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/spec/template", "value": template}})
	if err != nil {
		return err
	}
	if _, err := c.resource(t.mapping, c.namespace).Patch(ctx, t.name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: manager}); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "%s rolled back to revision %d\n", display(t.mapping, t.name), to)
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

// pause sets or clears spec.paused; asking for what is so already is refused, as kubectl does.
func (o oneWorkload) pause(ctx context.Context, s *Streams, paused bool) error {
	c, t, err := o.open(ctx, s)
	if err != nil {
		return err
	}
	if t.mapping.GroupVersionKind.Kind != "Deployment" {
		return errors.New("only Deployments can be paused, not " + display(t.mapping, t.name))
	}
	obj, err := c.resource(t.mapping, c.namespace).Get(ctx, t.name, metav1.GetOptions{})
	if err != nil {
		return err
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

func (o oneWorkload) patch(ctx context.Context, s *Streams, patch []byte, verb string) error {
	c, t, err := o.open(ctx, s)
	if err != nil {
		return err
	}
	if !hasTemplate(t.mapping) {
		return errors.New(display(t.mapping, t.name) + " has no pod template")
	}
	if _, err := c.resource(t.mapping, c.namespace).Patch(ctx, t.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager}); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "%s %s\n", display(t.mapping, t.name), verb)
	return nil
}

func hasTemplate(m *meta.RESTMapping) bool {
	return strings.HasSuffix(m.GroupVersionKind.Group, "apps")
}
