package apiserver_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"petrel.dev/petrel/hub/admission/dynamic"
	admissionwebhook "petrel.dev/petrel/hub/admission/webhook"
	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/fieldmanager"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/hub/webhook"
)

// configured is what users configure, once the registry that it reads is there.
type configured struct{ *dynamic.Admission }

// Mutate implements registry.Admission.
func (c *configured) Mutate(ctx context.Context, a *registry.AdmissionRequest) error {
	if c.Admission == nil {
		return nil
	}
	return c.Admission.Mutate(ctx, a, func() error { return nil })
}

// Validate implements registry.Admission.
func (c *configured) Validate(ctx context.Context, a *registry.AdmissionRequest) error {
	if c.Admission == nil {
		return nil
	}
	return c.Admission.Validate(ctx, a)
}

// TestKubectlAdmission runs the stories in testdata/kubectl-admission: the real kubectl against a hub with policies and webhooks.
func TestKubectlAdmission(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/kubectl-admission",
		Setup: func(env *testscript.Env) error {
			kinds, users, metrics := registrytest.Kinds(), &configured{}, admissionwebhook.NewMetrics()
			h := newHubOf(t, kinds, users, withNode(&node{}), func(c *apiserver.Config) {
				c.Collectors, c.Dialer = append(c.Collectors, metrics), onePlace{"127.0.0.1:1"}
			})
			env.Defer(h.stop)
			var err error
			users.Admission, err = dynamic.New(dynamic.Config{
				Objects: h.cache, Kinds: kinds, Client: webhook.New(nil), Types: fieldmanager.TypeConverter(kinds, &openapi.Types{}),
				Authorizer: auth.Union{auth.Masters{}}, Metrics: metrics, Log: slog.New(slog.DiscardHandler),
			})
			env.Setenv("KUBECONFIG", h.kubeconfig)
			env.Setenv("PATH", filepath.Dir(kubectlPath)+string(os.PathListSeparator)+env.Getenv("PATH"))
			return err
		},
	})
}
