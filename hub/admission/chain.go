// Package admission is what may change or refuse a write before its kind's own rules see it: the account and token that a
// pod gets, the cluster IP of a Service, a namespace that is being deleted. Each concern is one file and one step, here or in a
// room below; Chain runs them in order. Refusals have upstream's texts.
//
//	write ─► Mutate: namespace ─► limits ─► pod: account ─► node ─► pod: priority, tolerations ─► classes ─► Dynamic
//	      ─► service: addresses ─► kind's rules ─► Validate: rights, limits, pod, classes, service ─► Dynamic
//
// Dynamic is what users configure, policies and webhooks (hub/admission/dynamic).
package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/admission/certificates"
	"petrel.dev/petrel/hub/admission/classes"
	"petrel.dev/petrel/hub/admission/devices"
	"petrel.dev/petrel/hub/admission/limits"
	"petrel.dev/petrel/hub/admission/noderestriction"
	"petrel.dev/petrel/hub/admission/podsecurity"
	admitquota "petrel.dev/petrel/hub/admission/quota"
	"petrel.dev/petrel/hub/admission/resize"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/quota"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// Objects reads stored objects in their typed form; *objects.Cache is one.
type Objects interface {
	control.Reader
	control.Feed
}

// Config of a Chain.
type Config struct {
	// Objects reads what is stored. Required.
	Objects Objects
	// ServiceCIDR is where cluster IPs come from; the zero value is kube.DefaultServiceCIDR. Its first address is the
	// API's own, its tenth the cluster DNS's.
	ServiceCIDR netip.Prefix
	// ClusterCIDR is where pods get their addresses from; invalid: not known.
	ClusterCIDR netip.Prefix
	// Authorizer decides who may approve and sign certificate requests, and with Rights who may grant what by roles and bindings; nil:
	// nobody, but roles by system:masters.
	Authorizer auth.Authorizer
	Rights     Rights
	// Dynamic is what users configure, webhooks and policies; nil: nothing.
	Dynamic Dynamic
	// Ledger counts what ResourceQuotas limit. Required.
	Ledger *quota.Ledger
	Log    *slog.Logger
}

// Dynamic runs what users configure at its place among the steps; *dynamic.Admission does.
type Dynamic interface {
	// Mutate may run builtin, the built-in mutating steps, again.
	Mutate(ctx context.Context, a *registry.AdmissionRequest, builtin func() error) error
	Validate(ctx context.Context, a *registry.AdmissionRequest) error
}

// Chain runs all steps. It is a registry.Admission, immutable, and safe for concurrent use.
type Chain struct {
	objects  Objects
	dynamic  Dynamic // nil: none
	mutate   []step
	complete []step // what upstream does after mutating admission
	validate []step
	charge   step // the last: what it takes is for a write that nothing else refuses
}

// step changes a.Object, or refuses the write with an *apierrors.StatusError.
type step func(ctx context.Context, a *registry.AdmissionRequest) error

var _ registry.Admission = (*Chain)(nil)

// New returns the chain, or what is wrong with cfg.
func New(cfg Config) (*Chain, error) {
	if cfg.Objects == nil {
		return nil, errors.New("admission: Config.Objects is missing")
	}
	if cfg.Ledger == nil {
		return nil, errors.New("admission: Config.Ledger is missing")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if !cfg.ServiceCIDR.IsValid() {
		cfg.ServiceCIDR = netip.MustParsePrefix(kube.DefaultServiceCIDR)
	}
	services, err := newServices(cfg)
	if err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	namespaces := &namespaces{objects: cfg.Objects}
	accounts := &accounts{objects: cfg.Objects}
	priorities := &priorities{objects: cfg.Objects}
	nodes := noderestriction.New(cfg.Objects, cfg.Authorizer)
	escalation := &escalation{authorizer: cfg.Authorizer, rights: cfg.Rights}
	ranges := limits.New(cfg.Objects)
	classes := classes.New(cfg.Objects)
	standards := podsecurity.New(cfg.Objects)
	quotas := admitquota.New(cfg.Objects, cfg.Ledger)
	places := &topology{objects: cfg.Objects}
	return &Chain{
		objects: cfg.Objects,
		dynamic: cfg.Dynamic,
		// The order of all is upstream's recommended one.
		mutate: []step{
			namespaces.admit,
			ranges.Default,
			onPods(accounts.assign),
			nodes.Admit,
			onPods(priorities.assign),
			onPods(tolerate),
			classes.DefaultClaim,
			classes.Protect,
			classes.CompletePod,
			places.label,
			classes.DefaultIngress,
		},
		complete: []step{
			services.allocate,
		},
		validate: []step{
			escalation.check,
			ranges.Check,
			certificates.New(cfg.Authorizer).Validate,
			onPods(accounts.limitSecrets),
			onPodsAt(ephemeralContainers, accounts.limitSecrets),
			standards.Check,
			priorities.oneDefault,
			classes.CheckResize,
			classes.CheckPod,
			devices.New(cfg.Objects).CheckAdminAccess,
			resize.New(cfg.Objects).Check,
			onPods(refuseFields),
			refuseSCTP,
		},
		charge: quotas.Charge,
	}, nil
}

// Mutate implements registry.Admission. Its steps see all that was committed before the write came: what a client has
// just created is there for its next request.
func (c *Chain) Mutate(ctx context.Context, a *registry.AdmissionRequest) error {
	if looks(a) {
		if err := c.objects.CatchUp(ctx); err != nil {
			return behind(a, err)
		}
	}
	if err := run(ctx, c.mutate, a); err != nil {
		return err
	}
	if c.dynamic != nil {
		if err := c.dynamic.Mutate(ctx, a, func() error { return run(ctx, c.mutate, a) }); err != nil {
			return err
		}
	}
	return run(ctx, c.complete, a)
}

// looks reports whether a step reads other objects for this write. Most writes are statuses, for which none does.
func looks(a *registry.AdmissionRequest) bool {
	switch a.Target.Kind.GVK {
	case kube.Service, kube.PriorityClass, kube.RoleBinding, kube.ClusterRoleBinding:
		return true
	}
	_, node := auth.NodeOf(a.User)
	return node || enters(a) || resize.Concerns(a)
}

// behind returns the error of a write that could not be checked against what is stored.
func behind(a *registry.AdmissionRequest, err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return apierrors.NewServerTimeout(a.Target.Kind.Resource(), strings.ToLower(string(a.Operation)), 2)
	}
	return apierrors.NewServiceUnavailable(err.Error())
}

// Validate implements registry.Admission.
func (c *Chain) Validate(ctx context.Context, a *registry.AdmissionRequest) error {
	if err := run(ctx, c.validate, a); err != nil {
		return err
	}
	if c.dynamic != nil {
		if err := c.dynamic.Validate(ctx, a); err != nil {
			return err
		}
	}
	return c.charge(ctx, a)
}

// run runs steps in order. The first refusal ends it, so that later steps may rely on what earlier ones have set.
func run(ctx context.Context, steps []step, a *registry.AdmissionRequest) error {
	for _, s := range steps {
		if err := s(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// awaitTime is how long a write waits for what the hub itself makes for it: a namespace of the hub's own, made at its first
// start, and the default account of a namespace, made a moment after that.
const awaitTime = time.Second

// await returns an object that a controller is about to make, as soon as it exists.
func await[T kube.Object](ctx context.Context, objects Objects, gvk kube.GVK, namespace, name string) (T, bool) {
	ctx, cancel := context.WithTimeout(ctx, awaitTime)
	defer cancel()
	made := make(chan T, 1)
	objects.Subscribe(ctx, func(ch control.Change) {
		obj, ok := ch.New.(T)
		if !ok || obj.GetNamespace() != namespace || obj.GetName() != name {
			return
		}
		select {
		case made <- obj:
		default: // a later state of it
		}
	}, gvk)
	select {
	case obj := <-made:
		return obj, true
	case <-ctx.Done():
		var none T
		return none, false
	}
}
