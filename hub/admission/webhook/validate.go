package webhook

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/internal/contain"
)

// asked is one webhook that a write concerns. Its last three fields belong to its goroutine until that has ended.
type asked struct {
	hook *hook
	hit  match.Hit
	view *admission.VersionedAttributes

	response *response
	took     time.Duration
	err      error
}

// Validate asks the validating webhooks, all at the same time. The refusal is that of the first in their order.
func (c *Caller) Validate(ctx context.Context, set *Set, w *match.Write) error {
	if w.Configures() {
		return nil
	}
	var all []*asked
	for _, g := range set.validating {
		for _, h := range g.hooks {
			hit, ok, err := c.concerns(ctx, set, h, w)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			view, err := w.As(ctx, hit.Kind)
			if err != nil {
				return apierrors.NewInternalError(err)
			}
			all = append(all, &asked{hook: h, hit: hit, view: view})
		}
	}
	if len(all) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return apierrors.NewTimeoutError("request did not complete within requested timeout", 0)
	}
	c.ask(ctx, w, all)
	var refused error
	for _, a := range all {
		a.hook.note(ctx, w, a.response)
		if err := c.settle(ctx, a.hook, w, 0, a.took, a.err); err != nil && refused == nil {
			refused = err
		}
	}
	return refused
}

// ask calls all webhooks, and returns when all have answered.
func (c *Caller) ask(ctx context.Context, w *match.Write, all []*asked) {
	var wg sync.WaitGroup
	for _, a := range all {
		wg.Go(func() {
			began := time.Now()
			a.err = &failedCall{a.hook.name, fmt.Errorf("ValidatingAdmissionWebhook/%v has panicked", a.hook.name), 500}
			contain.Go(c.log, "admission/webhook", a.hook.name, func() {
				r, err := c.call(ctx, a.hook, w, a.hit, a.view)
				if err == nil {
					err = r.refusal(a.hook.name)
				}
				a.response, a.err = r, err
			})
			a.took = time.Since(began)
		})
	}
	wg.Wait()
}
