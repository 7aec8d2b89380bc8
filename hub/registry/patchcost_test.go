package registry_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

func envs(prefix string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,{"name":"%s%d","value":"x"}`, prefix, i)
	}
	return b.String()[1:]
}

func container(name, env string) string { return `{"name":"` + name + `","env":[` + env + `]}` }

// Patches whose application would take minutes of one core, which nothing can stop, are refused before they begin; what
// people send is not.
func TestCostlyPatches(t *testing.T) {
	r := registrytest.New(t)
	target := registrytest.Target(t, kube.Deployment, "default", "web")
	d := deployment("web")
	for i := range 2000 {
		c := &d.Spec.Template.Spec.Containers[0]
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("E", i), Value: "x"})
	}
	name := d.Spec.Template.Spec.Containers[0].Name
	registrytest.Create(t, r, d)
	spec := func(s string) string { return `{"spec":{"template":{"spec":{` + s + `}}}}` }
	order := strings.ReplaceAll(envs("E", 2000), `,"value":"x"`, "")
	var twins strings.Builder
	for range 100 {
		twins.WriteString("," + container(name, envs("T", 200)))
	}
	var tests strings.Builder
	for range 9990 {
		tests.WriteString(`,{"op":"test","path":"/metadata/name","value":"web"}`)
	}
	var adds strings.Builder
	for range 9999 {
		adds.WriteString(`,{"op":"add","path":"/spec/template/spec/containers/0/args/0","value":"x"}`)
	}
	args := `{"op":"add","path":"/spec/template/spec/containers/0/args","value":[` + strings.Repeat(`"",`, 60000) + `""]}`
	for what, tt := range map[string]struct {
		kind  types.PatchType
		patch string
		ok    bool
	}{
		"20,000 variables":        {strategicPatch, spec(`"containers":[` + container(name, envs("F", 20000)) + `]`), false},
		"one container 100 times": {strategicPatch, spec(`"containers":[` + twins.String()[1:] + `]`), false},
		"40,000 finalizers":       {strategicPatch, `{"metadata":{"finalizers":[` + strings.Repeat(`"a/b",`, 40000) + `"a/b"]}}`, false},
		"an order of 20,000":      {strategicPatch, spec(`"$setElementOrder/containers":[` + strings.Repeat(`{"name":"c"},`, 20000) + `{"name":"c"}]`), false},
		"inserting into 60,000":   {jsonPatch, "[" + args + adds.String() + "]", false},
		"9,990 tests":             {jsonPatch, "[" + tests.String()[1:] + "]", false},
		"one variable":            {strategicPatch, spec(`"containers":[` + container(name, envs("E", 1)) + `]`), true},
		"apply of all variables":  {strategicPatch, spec(`"$setElementOrder/containers":[{"name":"` + name + `"}],"containers":[{"name":"` + name + `","$setElementOrder/env":[` + order + `],"env":[{"name":"E7","value":"y"}]}]`), true},
		"500 new variables":       {strategicPatch, spec(`"containers":[` + container(name, envs("N", 500)) + `]`), true},
		"a long list replaced":    {strategicPatch, spec(`"containers":[{"name":"` + name + `","args":[` + strings.Repeat(`"",`, 5000) + `""]}]`), true},
		"200 operations":          {jsonPatch, "[" + strings.Repeat(`{"op":"test","path":"/metadata/name","value":"web"},`, 199) + `{"op":"add","path":"/metadata/labels","value":{"x":"y"}}]`, true},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := r.Patch(ctx, target, tt.kind, []byte(tt.patch), &metav1.PatchOptions{DryRun: []string{"All"}})
			switch {
			case tt.ok && err != nil:
				t.Errorf("refused: %.300v", err)
			case !tt.ok && !apierrors.IsRequestEntityTooLargeError(err):
				t.Errorf("error %.300v", err)
			}
		})
	}
}
