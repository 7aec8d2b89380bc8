package dynamic

import (
	"context"
	"time"

	"k8s.io/apiserver/pkg/apis/audit"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/hub/registry"
)

// configTime is how long a write of a configuration may be on its way between admission and the commit: longer than a request may
// take.
const configTime = time.Minute

// Mutate runs the mutating policies and webhooks on a write. builtin are the built-in mutating steps, which have run once; they run
// again when the object has been changed. Both rounds are one call.
func (d *Admission) Mutate(ctx context.Context, a *registry.AdmissionRequest, builtin func() error) error {
	s, err := d.current(ctx, a)
	if s == nil || err != nil {
		return err
	}
	w := d.write(ctx, a)
	var policies, webhooks match.Again
	for round := range 2 {
		if round > 0 {
			if err := builtin(); err != nil {
				return err
			}
			w = d.write(ctx, a) // the built-in steps know nothing of its views
		}
		policies.Begin(w.GetObject())
		if err := d.policies.Mutate(ctx, s.policies, w, &policies); err != nil {
			return err
		}
		changed := policies.End(w.GetObject())
		webhooks.Begin(w.GetObject())
		if err := d.webhooks.Mutate(ctx, s.webhooks, w, round, &webhooks); err != nil {
			return err
		}
		if changed = webhooks.End(w.GetObject()) || changed; !changed {
			break
		}
	}
	return nil
}

// Validate runs the validating policies, then the webhooks.
func (d *Admission) Validate(ctx context.Context, a *registry.AdmissionRequest) error {
	s, err := d.current(ctx, a)
	if s == nil || err != nil {
		return err
	}
	w := d.write(ctx, a)
	if err := d.policies.Validate(ctx, s.policies, w); err != nil {
		return err
	}
	return d.webhooks.Validate(ctx, s.webhooks, w)
}

// write returns the request as policies and webhooks see it.
func (d *Admission) write(ctx context.Context, a *registry.AdmissionRequest) *match.Write {
	var note match.Note
	if d.cfg.Note != nil {
		note = func(level audit.Level, key, value string) { d.cfg.Note(ctx, level, key, value) }
	}
	return match.New(a, d.cfg.Kinds, d.cfg.Objects, note)
}
