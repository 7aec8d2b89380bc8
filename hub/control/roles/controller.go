// Package roles keeps the roles and bindings that every cluster starts with up to date, once at each start of the hub, as Kubernetes
// does: what is missing is added, rights and subjects that an administrator added stay, and an object that is annotated
// rbac.authorization.kubernetes.io/autoupdate=false is left alone. A binding to another role is made anew, because a binding's role
// cannot change. What is as it should be is not written.
package roles

import (
	"context"
	"errors"
	"log/slog"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	// Objects returns what there should be, in new objects.
	Objects func() []kube.Object
	Log     *slog.Logger // nil: discarded
}

// Controller brings the objects up to date when it starts to run.
type Controller struct {
	cfg  Config // does not change after New
	loop *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{cfg: cfg}
	c.loop = &control.Loop{
		Name: "roles", Client: cfg.Client, Log: cfg.Log,
		Reconcile: func(ctx context.Context, _ control.Key) (time.Duration, error) { return 0, c.reconcile(ctx) },
	}
	c.loop.Enqueue(control.Key{Name: "cluster"})
	return c
}

// Run reconciles until all is up to date, and then waits for the end of ctx.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// reconcile writes all that differs in one transaction: at the first start that is everything, and no request ever sees a part of it.
func (c *Controller) reconcile(ctx context.Context) error {
	var writes []control.Write
	for _, want := range c.cfg.Objects() {
		gvk := control.GVKOf(want)
		old, ok := c.cfg.Client.Get(gvk, want.GetNamespace(), want.GetName())
		if !ok {
			writes = append(writes, control.Write{Object: want})
			continue
		}
		if roleChanged(old, want) && old.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] != "false" {
			if err := c.recreate(ctx, old, want); err != nil {
				return err
			}
			continue
		}
		next := updated(old, want)
		switch {
		case next == nil:
		case old.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] == "false":
			c.cfg.Log.Warn("role or binding lacks what this version of the hub comes with, and is annotated to be left alone",
				"kind", gvk.Kind, "namespace", want.GetNamespace(), "name", want.GetName())
		default:
			writes = append(writes, control.Write{Object: next, Old: old})
		}
	}
	if len(writes) == 0 {
		return nil
	}
	err := c.cfg.Client.Commit(ctx, writes)
	if err == nil {
		c.cfg.Log.Info("roles and bindings brought up to date", "written", len(writes))
	}
	return err
}

// recreate replaces a binding by one to another role.
func (c *Controller) recreate(ctx context.Context, old, want kube.Object) error {
	uid := old.GetUID()
	err := c.cfg.Client.Delete(ctx, control.GVKOf(want), want.GetNamespace(), want.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	_, err = c.cfg.Client.Create(ctx, want)
	if apierrors.IsAlreadyExists(err) {
		return errors.New("a binding came back while it was replaced") // the next try looks at what it is
	}
	return err
}
