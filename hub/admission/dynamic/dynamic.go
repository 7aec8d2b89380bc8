// Package dynamic runs what users configure for admission, policies and webhooks, in upstream's order:
//
//	built-in steps ─► MutatingAdmissionPolicies ─► mutating webhooks ─┬─► the kind's rules ─► ValidatingAdmissionPolicies ─► validating webhooks
//	      ▲                                                           │
//	      └─────────────── a second round, if an object changed ──────┘
//
// As long as nothing is configured it costs one atomic read for each write.
package dynamic

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/apis/audit"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/hub/admission/policy"
	"petrel.dev/petrel/hub/admission/webhook"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// Objects reads what is stored; *objects.Cache is one.
type Objects interface {
	policy.Objects
	CatchUp(ctx context.Context) error
}

// Config of an Admission. What is not said to be optional is required.
type Config struct {
	Objects Objects
	Kinds   match.Kinds
	Client  webhook.Client // how webhooks are reached
	// Types describes all kinds, for patches that are apply configurations.
	Types managedfields.TypeConverter
	// Authorizer answers the expressions that ask whether a user may do something.
	Authorizer auth.Authorizer
	Metrics    *webhook.Metrics
	Log        *slog.Logger
	// Note takes an annotation of ctx's request for the audit log, as a match.Note does; nil: they are dropped.
	Note func(ctx context.Context, level audit.Level, key, value string)
}

// Admission is what is configured. It is safe for concurrent use.
type Admission struct {
	cfg      Config
	webhooks *webhook.Caller
	policies *policy.Evaluator

	// unused is set while it is known that nothing is configured.
	unused atomic.Bool

	mu      sync.Mutex
	last    *sets     // as of the last request; guarded by mu
	written time.Time // when admission last saw a write of a configuration; guarded by mu
}

// sets is all that is configured, as of one moment. It is immutable.
type sets struct {
	webhooks *webhook.Set
	policies *policy.Set
}

func (s *sets) empty() bool { return s.webhooks.Empty() && s.policies.Empty() }

// New returns an Admission, or an error if cfg is not complete.
func New(cfg Config) (*Admission, error) {
	switch {
	case cfg.Objects == nil, cfg.Kinds == nil, cfg.Client == nil, cfg.Types == nil, cfg.Authorizer == nil, cfg.Metrics == nil, cfg.Log == nil:
		return nil, errors.New("dynamic admission: a field of Config is missing")
	}
	authz := asAuthorizer{cfg.Authorizer}
	return &Admission{
		cfg: cfg, last: &sets{},
		webhooks: webhook.New(cfg.Client, authz, cfg.Metrics, cfg.Log),
		policies: policy.New(cfg.Objects, cfg.Kinds, cfg.Types, authz, cfg.Log),
	}, nil
}

// current returns what is configured, nil for nothing. It shows what was committed before the call.
func (d *Admission) current(ctx context.Context, a *registry.AdmissionRequest) (*sets, error) {
	if a.Kind.GVK.Group == admissionregistrationv1.GroupName {
		d.expect()
	}
	if d.unused.Load() {
		return nil, nil
	}
	if err := d.cfg.Objects.CatchUp(ctx); err != nil {
		return nil, unready(a, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &sets{
		webhooks: webhook.NewSet(d.last.webhooks,
			control.List[*admissionregistrationv1.MutatingWebhookConfiguration](d.cfg.Objects, kube.MutatingWebhookConfiguration, ""),
			control.List[*admissionregistrationv1.ValidatingWebhookConfiguration](d.cfg.Objects, kube.ValidatingWebhookConfiguration, "")),
		policies: policy.NewSet(d.last.policies, d.cfg.Objects),
	}
	d.last = s
	if !s.empty() {
		return s, nil
	}
	d.unused.Store(time.Since(d.written) > configTime)
	return nil, nil
}

// expect makes requests look for configurations, because one is about to be written. All writes come through admission, so nothing
// else has to be watched.
func (d *Admission) expect() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written = time.Now()
	d.unused.Store(false)
}

// unready returns the refusal of a write that came before it could be known what is configured.
func unready(a *registry.AdmissionRequest, err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return apierrors.NewServerTimeout(a.Kind.Resource(), strings.ToLower(string(a.Operation)), 2)
	}
	return apierrors.NewServiceUnavailable(err.Error())
}
