package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/cli/manifest"
)

// Delete removes objects, and waits until they are gone.
type Delete struct {
	Cluster
	Args          []string      `arg:"" optional:"" name:"what" help:"TYPE NAME..., TYPE/NAME..., or TYPE with -l or --all."`
	Filename      []string      `short:"f" help:"Delete the objects of these files or directories (- is standard input)." placeholder:"FILE"`
	Recursive     bool          `short:"R" help:"With -f: directories with all that is below them."`
	Selector      string        `short:"l" help:"All objects with these labels." placeholder:"SELECTOR"`
	All           bool          `help:"All objects of the type in the namespace."`
	AllNamespaces bool          `short:"A" help:"Of all namespaces (with -l or --all)."`
	GracePeriod   int64         `default:"-1" help:"Seconds that a pod gets to stop; 0 means 1 without --force. Default: the pod's own." placeholder:"SECONDS"`
	Now           bool          `help:"One second of grace."`
	Force         bool          `help:"Remove from the API at once, without waiting for the node: the container may go on running on a dark node until it returns."`
	Cascade       string        `enum:"background,foreground,orphan" default:"background" help:"What becomes of the objects that it owns. (${enum})" placeholder:"HOW"`
	Wait          bool          `default:"true" negatable:"" help:"Wait until the objects are gone."`
	Timeout       time.Duration `help:"Give up waiting after this time; 0 never." placeholder:"DURATION"`
	IgnoreMissing bool          `name:"ignore-not-found" help:"An object that does not exist is no error."`
	DryRun        string        `enum:"none,client,server" default:"none" help:"Do not delete. (${enum})" placeholder:"WHERE"`
	Output        string        `short:"o" enum:",name" default:"" help:"name: print only TYPE/NAME." placeholder:"FORMAT"`
}

// Run deletes, then waits.
func (d *Delete) Run(ctx context.Context, s *Streams) error {
	if err := d.grace(s); err != nil {
		return err
	}
	c, err := d.connect(ctx, s)
	if err != nil {
		return err
	}
	objs, errs, err := d.objects(ctx, c, s)
	if err != nil {
		return err
	}
	if d.IgnoreMissing {
		errs = nil
	} else if len(objs) == 0 && len(errs) == 0 {
		fmt.Fprintln(s.Out, "No resources found")
		return nil
	}
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d.Timeout, fmt.Errorf("timed out after %s waiting for the deletion to finish", d.Timeout))
		defer cancel()
	}
	var gone []found
	for _, o := range objs {
		if err := d.one(ctx, c, s, o.mapping, o.object); err != nil {
			if !(d.IgnoreMissing && isNotFound(err)) {
				errs = append(errs, err)
			}
			continue
		}
		gone = append(gone, o)
	}
	if d.Wait && d.DryRun == "none" {
		for _, o := range gone {
			if err := c.waitGone(ctx, o.mapping, o.object.GetNamespace(), o.object.GetName(), o.object.GetUID()); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// grace computes the grace period from three flags, as kubectl does: without --force, 0 means one second, so that the node still
// stops the pod.
func (d *Delete) grace(s *Streams) error {
	if d.Now {
		if d.GracePeriod >= 0 {
			return errors.New("--now is a grace period of one second; give it or --grace-period")
		}
		d.GracePeriod = 1
	}
	switch {
	case d.Force && d.GracePeriod > 0:
		return errors.New("--force does not wait for the node, so there is no grace period to give: leave out --grace-period, --now or --force")
	case d.Force:
		d.GracePeriod = 0
		fmt.Fprintln(s.Err, "Warning: --force removes the object without waiting for its node; a container on a dark node may go on running until it returns.")
	case d.GracePeriod == 0:
		d.GracePeriod = 1
	}
	return nil
}

// objects returns what to delete, and an error for each name that does not exist.
func (d *Delete) objects(ctx context.Context, c *conn, s *Streams) ([]found, []error, error) {
	if len(d.Filename) == 0 {
		return c.selected(ctx, choice{d.Args, d.Selector, d.All, d.AllNamespaces, c.namespace})
	}
	if len(d.Args) > 0 || d.Selector != "" || d.All {
		return nil, nil, errors.New("-f names what to delete; leave out names, -l and --all")
	}
	docs, err := manifest.Read(s.In, d.Filename, d.Recursive)
	if err != nil {
		return nil, nil, err
	}
	var objs []found
	for _, doc := range docs {
		m, err := c.mappingOf(doc)
		if err != nil {
			return nil, nil, err
		}
		if _, err := c.namespaceOf(m, doc, d.Cluster.Namespace); err != nil {
			return nil, nil, err
		}
		doc.Object.SetUID("") // the one in the manifest may be another object's
		objs = append(objs, found{doc.Object, m})
	}
	return objs, nil, nil
}

func (d *Delete) one(ctx context.Context, c *conn, s *Streams, m *meta.RESTMapping, o *unstructured.Unstructured) error {
	policy := map[string]metav1.DeletionPropagation{
		"background": metav1.DeletePropagationBackground, "foreground": metav1.DeletePropagationForeground, "orphan": metav1.DeletePropagationOrphan,
	}[d.Cascade]
	opts := metav1.DeleteOptions{PropagationPolicy: &policy, DryRun: dryRun(d.DryRun)}
	if d.GracePeriod >= 0 {
		opts.GracePeriodSeconds = &d.GracePeriod
	}
	if d.DryRun != "client" {
		if err := c.resource(m, o.GetNamespace()).Delete(ctx, o.GetName(), opts); err != nil {
			return err
		}
	}
	if d.Output == "name" {
		fmt.Fprintln(s.Out, display(m, o.GetName()))
		return nil
	}
	how := "deleted"
	if d.Force {
		how = "force deleted"
	}
	where := ""
	if namespaced(m) {
		where = fmt.Sprintf(" from %s namespace", o.GetNamespace())
	}
	dry := map[string]string{"client": " (dry run)", "server": " (server dry run)"}[d.DryRun]
	kind := m.Resource.Resource
	if m.GroupVersionKind.Kind != "" {
		kind = display(m, "")
		kind = kind[:len(kind)-1]
	}
	fmt.Fprintf(s.Out, "%s %q %s%s%s\n", kind, o.GetName(), how, where, dry)
	return nil
}

// waitGone waits until the object does not exist, or exists under another UID.
func (c *conn) waitGone(ctx context.Context, m *meta.RESTMapping, ns, name string, uid types.UID) error {
	for {
		q := url.Values{"fieldSelector": {"metadata.name=" + name}}
		list, err := c.resource(m, ns).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err != nil {
			return waitError(ctx, err)
		}
		if len(list.Items) == 0 || uid != "" && list.Items[0].GetUID() != uid {
			return nil
		}
		if uid == "" {
			uid = list.Items[0].GetUID()
		}
		q.Set("watch", "true")
		q.Set("resourceVersion", list.GetResourceVersion())
		gone := false
		err = c.follow(ctx, path(m, ns, ""), q, "application/json", func(event string, _ json.RawMessage) (bool, error) {
			gone = event == "DELETED"
			return gone, nil
		})
		if gone {
			return nil
		}
		if err != nil {
			return waitError(ctx, err)
		}
	}
}

// waitError returns the reason why the wait was ended, if there is one, instead of the request's error.
func waitError(ctx context.Context, err error) error {
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		<-ctx.Done() // the client's rate limiter refuses at the deadline, which can be an instant before the context's timer has fired
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
