package hub

import (
	"context"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/node"
	"petrel.dev/petrel/hub/auth/rbac"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/roleaggregation"
	"petrel.dev/petrel/hub/control/roles"
	"petrel.dev/petrel/hub/resource/bootstrappolicy"
	"petrel.dev/petrel/hub/resource/core"
)

// openAccess sets who decides about requests: system:masters may do everything, nodes what their pods need, everybody what roles say.
func (h *Hub) openAccess() error {
	nodes, err := node.New(node.Config{
		Objects: h.objects, Rules: bootstrappolicy.NodeRules(),
		PodSecrets: core.PodSecrets, PodConfigMaps: core.PodConfigMaps, VolumeSecrets: core.VolumeSecrets,
	})
	if err != nil {
		return err
	}
	h.rights = rbac.New(h.objects)
	h.policy = auth.Union{auth.Masters{}, nodes, h.rights}
	return nil
}

// accessLoops keep roles as they should be, and end long requests whose token is not good any more.
func (h *Hub) accessLoops() []runner {
	aggregation := auth.Controller(roleaggregation.Name)
	aggregation.Manager = roleaggregation.Name
	return []runner{
		roles.New(roles.Config{Client: h.registry.Client(), Objects: bootstrappolicy.Objects, Log: h.part("roles")}),
		roleaggregation.New(h.registry.ClientAs(aggregation), h.part("roleaggregation")),
		runnerFunc(h.followTokens),
	}
}

// followTokens reports what tokens are bound to, as it changes, to the authenticator until ctx ends.
func (h *Hub) followTokens(ctx context.Context) error {
	h.objects.Subscribe(ctx, func(ch control.Change) { h.credentials.Changed(ch.Object()) }, auth.BoundKinds...)
	<-ctx.Done()
	return nil
}

// runnerFunc is a runner that is one function.
type runnerFunc func(ctx context.Context) error

// Run implements runner.
func (f runnerFunc) Run(ctx context.Context) error { return f(ctx) }
