package apiserver_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/admission"
	"petrel.dev/petrel/hub/control/roleaggregation"
	"petrel.dev/petrel/hub/quota"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
)

// TestKubectl runs the stories in testdata/kubectl: the real kubectl against a hub of its own, with no controllers and no
// nodes behind it.
func TestKubectl(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/kubectl",
		Setup: func(env *testscript.Env) error {
			h := newHub(t, withNode(&node{}))
			bootstrap(t, h.reg.Client())
			env.Defer(h.stop)
			env.Setenv("KUBECONFIG", h.kubeconfig)
			env.Setenv("PATH", filepath.Dir(kubectlPath)+string(os.PathListSeparator)+env.Getenv("PATH"))
			return nil
		},
	})
}

// chain is the admission of a hub that is made after the hub of a test; nil: none yet.
type chain struct{ *admission.Chain }

func (c *chain) Mutate(ctx context.Context, a *registry.AdmissionRequest) error {
	if c.Chain == nil {
		return nil
	}
	return c.Chain.Mutate(ctx, a)
}

func (c *chain) Validate(ctx context.Context, a *registry.AdmissionRequest) error {
	if c.Chain == nil {
		return nil
	}
	return c.Chain.Validate(ctx, a)
}

// TestKubectlRoles runs the stories in testdata/roles: kubectl against a hub with the roles of every cluster, their aggregation, and
// the admission that keeps users from giving rights that they do not have.
func TestKubectlRoles(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/roles",
		Setup: func(env *testscript.Env) error {
			late := &chain{}
			kinds := registrytest.Kinds()
			h := newHubOf(t, kinds, late)
			env.Defer(h.stop)
			admit, err := admission.New(admission.Config{Objects: h.cache, Authorizer: h.policy, Rights: h.rights, Ledger: quota.NewLedger(h.cache, kinds.OfResource)})
			if err != nil {
				return err
			}
			late.Chain = admit
			client := h.reg.Client()
			for _, name := range []string{"kube-system", "kube-public", "shop"} {
				if _, err := client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
					return err
				}
			}
			bootstrap(t, client)
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error)
			go func() { ended <- roleaggregation.New(client, nil).Run(ctx) }()
			env.Defer(func() { cancel(); <-ended })
			env.Setenv("KUBECONFIG", h.kubeconfig)
			env.Setenv("PATH", filepath.Dir(kubectlPath)+string(os.PathListSeparator)+env.Getenv("PATH"))
			return nil
		},
	})
}

// get -w prints a line for each change, as it happens.
func TestKubectlWatch(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	const js = "Content-Type: application/json"
	h.do("POST", configMaps, configMap("a", ""), js)
	cmd := exec.CommandContext(t.Context(), kubectlPath, "get", "cm", "-w", "--output-watch-events")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+h.kubeconfig, "HOME="+filepath.Dir(h.kubeconfig))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := bufio.NewReader(stdout)
	for _, step := range []struct {
		do   func()
		want string
	}{
		{nil, `^EVENT +NAME +DATA +AGE\n$`},
		{nil, `^ADDED +a +0 `},
		{func() {
			h.do("PATCH", configMaps+"/a", `{"data":{"k":"v"}}`, "Content-Type: application/merge-patch+json")
		}, `^MODIFIED +a +1 `},
		{func() { h.do("POST", configMaps, configMap("b", ""), js) }, `^ADDED +b +0 `},
		{func() { h.do("DELETE", configMaps+"/a", "") }, `^DELETED +a +1 `},
	} {
		if step.do != nil {
			step.do()
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(step.want).MatchString(line) {
			t.Errorf("kubectl printed %q, want %s", line, step.want)
		}
	}
}
