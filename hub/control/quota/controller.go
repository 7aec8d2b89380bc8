// Package quota writes the status of ResourceQuotas: the limits that hold, and what is used of them. hub/quota counts; this
// controller only shows it, at most once a second for each quota.
package quota

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/quota"
	"petrel.dev/petrel/internal/kube"
)

// pause is the least time between two writes of one quota's status, so that a thousand pods do not cost a thousand writes.
const pause = time.Second

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Ledger *quota.Ledger
	Kinds  control.Kinds // a quota may name a kind that is served later
	Log    *slog.Logger
}

// Controller reconciles ResourceQuotas. Its fields are set by New and do not change.
type Controller struct {
	client control.Client
	ledger *quota.Ledger
	kinds  control.Kinds
	loop   *control.Loop

	mu      sync.Mutex
	written map[control.Key]time.Time // when the status was written; guarded by mu
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, ledger: cfg.Ledger, kinds: cfg.Kinds, written: map[control.Key]time.Time{}}
	c.loop = &control.Loop{
		Name: "quota", Client: cfg.Client, Log: cfg.Log, Workers: 2,
		Reconcile: c.reconcile,
		Sources:   []control.Source{{GVK: kube.ResourceQuota}},
	}
	cfg.Ledger.Notify(func(name types.NamespacedName) {
		c.loop.Enqueue(control.Key{Namespace: name.Namespace, Name: name.Name})
	})
	return c
}

// Run writes until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		for range c.kinds.Changes(ctx) {
			for _, q := range c.client.List(kube.ResourceQuota, "") {
				c.loop.Enqueue(control.KeyOf(q))
			}
		}
	})
	err := c.loop.Run(ctx)
	wg.Wait()
	return err
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	q, ok := control.Get[*corev1.ResourceQuota](c.client, kube.ResourceQuota, key.Namespace, key.Name)
	if !ok {
		c.ledger.Forget(types.NamespacedName{Namespace: key.Namespace, Name: key.Name})
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.written, key)
		return 0, nil
	}
	status := corev1.ResourceQuotaStatus{Hard: q.Spec.Hard.DeepCopy(), Used: c.ledger.Used(q)}
	if equality.Semantic.DeepEqual(status, q.Status) {
		return 0, nil
	}
	now := time.Now()
	c.mu.Lock()
	wait := c.written[key].Add(pause).Sub(now)
	if wait <= 0 {
		c.written[key] = now
	}
	c.mu.Unlock()
	if wait > 0 && equality.Semantic.DeepEqual(status.Hard, q.Status.Hard) {
		return wait, nil
	}
	up := q.DeepCopy()
	up.Status = status
	_, err := c.client.Update(ctx, up, "status")
	return 0, control.IgnoreNotFound(err)
}
