// Package admission is what may change or refuse a write before its kind's own rules see it: the account and token that a
// pod gets, the cluster IP of a Service, a namespace that is going away. Each concern is one file and one step; Chain runs
// them in order. Refusals read as upstream's do.
//
//	write ─► Mutate: namespace ─► pod: account, priority, tolerations ─► service: addresses ─► kind's rules ─► Validate
package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// Config of a Chain.
type Config struct {
	// Reader sees what is stored. The registry that it comes from needs the Chain first: give a struct that embeds a
	// control.Reader and fill that in before the first write.
	Reader control.Reader
	// ServiceCIDR is where cluster IPs come from; the zero value is kube.DefaultServiceCIDR. Its first address is the
	// API's own, its tenth the cluster DNS's.
	ServiceCIDR netip.Prefix
	// ClusterCIDR is where pods get their addresses from; invalid: not known.
	ClusterCIDR netip.Prefix
	Log         *slog.Logger
}

// Chain runs all steps. It is a registry.Admission, safe for concurrent use.
type Chain struct {
	mutate   []step
	validate []step
}

// step changes a.Object, or refuses the write with an *apierrors.StatusError.
type step func(ctx context.Context, a *registry.AdmissionRequest) error

var _ registry.Admission = (*Chain)(nil)

// New returns the chain, or an error that tells what is wrong with cfg.
func New(cfg Config) (*Chain, error) {
	if cfg.Reader == nil {
		return nil, errors.New("admission: Config.Reader is missing")
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
	namespaces := &namespaces{reader: cfg.Reader}
	accounts := &accounts{reader: cfg.Reader}
	return &Chain{
		mutate: []step{
			namespaces.admit,
			onPods(accounts.assign),
			onPods(prioritize),
			onPods(tolerate),
			services.allocate,
		},
		validate: []step{
			onPods(accounts.limitSecrets),
			onPods(refuseFields),
			refuseSCTP,
		},
	}, nil
}

// Mutate implements registry.Admission.
func (c *Chain) Mutate(ctx context.Context, a *registry.AdmissionRequest) error {
	return run(ctx, c.mutate, a)
}

// Validate implements registry.Admission.
func (c *Chain) Validate(ctx context.Context, a *registry.AdmissionRequest) error {
	return run(ctx, c.validate, a)
}

func run(ctx context.Context, steps []step, a *registry.AdmissionRequest) error {
	for _, s := range steps {
		if err := s(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// forbidden refuses a, naming the object as far as its name is known.
func forbidden(a *registry.AdmissionRequest, why error) *apierrors.StatusError {
	name := a.Target.Name
	if name == "" && a.Object != nil {
		name = a.Object.GetName()
	}
	if name == "" && a.Object != nil {
		name = a.Object.GetGenerateName()
	}
	if name == "" {
		name = "Unknown"
	}
	return apierrors.NewForbidden(a.Target.Kind.Resource(), name, why)
}

// soon asks again until ok, at most for d: what the Reader shows may be a moment older than the last commit.
func soon(ctx context.Context, d time.Duration, ok func() bool) bool {
	if ok() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
			if ok() {
				return true
			}
		}
	}
}
