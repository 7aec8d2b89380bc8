package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/warning"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/hub/webhook"
)

// maxResponse bounds the answer of a webhook in bytes: a patch that writes the largest object anew, in base64, and some more.
const maxResponse = 8 << 20

// Client posts to a webhook; *webhook.Client is one.
type Client interface {
	Call(ctx context.Context, t webhook.Target, body []byte, limit int64) ([]byte, error)
}

// Caller asks webhooks. It is safe for concurrent use.
type Caller struct {
	client     Client
	authorizer authorizer.Authorizer // for match conditions
	log        *slog.Logger
	metrics    *Metrics
}

// New returns a caller. All arguments are required.
func New(client Client, authorizer authorizer.Authorizer, metrics *Metrics, log *slog.Logger) *Caller {
	return &Caller{client: client, authorizer: authorizer, metrics: metrics, log: log}
}

// failedCall is the error of a webhook that could not be asked, or did not answer as it should: the failure policy decides.
type failedCall struct {
	name   string
	reason error
	code   int32 // for metrics
}

func (e *failedCall) Error() string {
	return fmt.Sprintf("failed calling webhook %q: %v", e.name, e.reason)
}
func (e *failedCall) Unwrap() error { return e.reason }

// concerns reports whether a hook is to be asked about the write, and in which version. An error refuses the write.
func (c *Caller) concerns(ctx context.Context, set *Set, h *hook, w *match.Write) (match.Hit, bool, error) {
	if h.broken != nil {
		return match.Hit{}, false, apierrors.NewInternalError(h.broken)
	}
	hit, ok, err := h.scope.Match(w)
	if err != nil || !ok || len(h.conditions) == 0 {
		return hit, ok, err
	}
	view, err := w.As(ctx, hit.Kind)
	if err != nil {
		return hit, false, apierrors.NewInternalError(err)
	}
	if ctx.Err() != nil { // each costs some, and there may be thousands
		return hit, false, apierrors.NewTimeoutError("request did not complete within requested timeout: match conditions of webhooks take too long", 0)
	}
	result := h.conditionMatcher(set.room).Match(ctx, view, nil, c.authorizer)
	if result.Error != nil {
		c.log.Warn("match conditions of a webhook cannot be evaluated", "webhook", h.name, "error", result.Error)
		return hit, false, apierrors.NewForbidden(w.GetResource().GroupResource(), w.GetName(), result.Error)
	}
	return hit, result.Matches, nil
}

// call asks one webhook. The error is a *failedCall, or refuses the write. It may be called from any goroutine.
func (c *Caller) call(ctx context.Context, h *hook, w *match.Write, hit match.Hit, view *admission.VersionedAttributes) (*response, error) {
	if w.IsDryRun() {
		if h.sideEffects == nil {
			//lint:ignore ST1005 upstream's text
			return nil, &failedCall{h.name, errors.New("Webhook SideEffects is nil"), 400}
		}
		if s := *h.sideEffects; s != admissionregistrationv1.SideEffectClassNone && s != admissionregistrationv1.SideEffectClassNoneOnDryRun {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("admission webhook %q does not support dry run", h.name))
		}
	}
	version, err := reviewVersion(h.versions)
	if err != nil {
		return nil, &failedCall{h.name, fmt.Errorf("could not create admission objects: %w", err), 400}
	}
	review := newReview(version, w, hit, view)
	body, err := json.Marshal(review)
	if err != nil {
		return nil, &failedCall{h.name, fmt.Errorf("could not create admission objects: %w", err), 400}
	}
	if h.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.timeout)
		defer cancel()
	}
	answer, err := c.client.Call(ctx, h.target, body, maxResponse)
	if err == nil {
		var r *response
		if r, err = readReview(answer, version); err == nil {
			if err = r.verify(review.Request.UID, version, h.kind == typeMutating); err == nil {
				return r, nil
			}
			return nil, &failedCall{h.name, fmt.Errorf("received invalid webhook response: %w", err), 503}
		}
	}
	failed := &failedCall{h.name, fmt.Errorf("failed to call webhook: %w", err), 503}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		failed.code = status.Status().Code
	}
	return nil, failed
}

// note passes on what a webhook said besides its decision. It is called from the request's goroutine.
func (h *hook) note(ctx context.Context, w *match.Write, r *response) {
	if r == nil {
		return
	}
	for k, v := range r.AuditAnnotations {
		_ = w.AddAnnotation(h.name+"/"+k, v)
	}
	for _, text := range r.Warnings {
		warning.AddWarning(ctx, "", text)
	}
}

// settle returns the error of the request: nil when the webhook admits the write, or when its failure is to be ignored.
func (c *Caller) settle(ctx context.Context, h *hook, w *match.Write, round int, took time.Duration, err error) error {
	var failed *failedCall
	if !errors.As(err, &failed) {
		c.metrics.observe(h, w, took, err)
		return err
	}
	ignored := h.fails == admissionregistrationv1.Ignore
	c.metrics.failed(h, w, took, failed, ignored)
	if !ignored {
		c.log.Warn("webhook failed, the write is refused", "webhook", h.name, "error", failed.reason)
		return apierrors.NewInternalError(failed)
	}
	c.log.Warn("webhook failed, the write goes on", "webhook", h.name, "error", failed.reason)
	prefix := "failed-open.validating.webhook.admission.k8s.io/"
	if h.kind == typeMutating {
		prefix = "failed-open.mutation.webhook.admission.k8s.io/"
	}
	_ = w.AddAnnotation(fmt.Sprintf("%sround_%d_index_%d", prefix, round, h.index), h.name)
	if ctx.Err() != nil {
		return apierrors.NewTimeoutError("request did not complete within requested timeout", 0)
	}
	return nil
}
