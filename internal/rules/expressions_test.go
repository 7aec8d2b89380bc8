package rules

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// evaluators are the libraries that evaluate CEL expressions, or make what does.
var evaluators = []string{
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation", // evaluates the rules of defaults
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel",
	"k8s.io/apiserver/pkg/admission/plugin/cel",
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch",
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions",
	"k8s.io/apiserver/pkg/authentication/cel",
	"k8s.io/apiserver/pkg/authorization/cel",
	"k8s.io/dynamic-resource-allocation/cel",
}

// TestExpressionsAreBounded exists because an expression of a hundred bytes can make a text that takes all memory: whatever evaluates
// expressions uses the bounds of hub/celbound, which is the only one that makes environments.
func TestExpressionsAreBounded(t *testing.T) {
	bounded := 0
	for _, p := range load(t) {
		if !strings.HasPrefix(p.ImportPath, module) || p.ImportPath == module+"/hub/celbound" {
			continue
		}
		for _, evaluator := range evaluators {
			if !slices.Contains(p.Imports, evaluator) {
				continue
			}
			if bounded++; !slices.Contains(p.Imports, module+"/hub/celbound") {
				t.Errorf("%s imports %s without hub/celbound: call celbound.Install before an expression is compiled", p.ImportPath, evaluator)
			}
		}
		for _, f := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, []byte("MustBaseEnvSet(")) || bytes.Contains(b, []byte("cel.NewEnv(")) {
				t.Errorf("%s/%s makes a CEL environment: take that of celbound.Install", p.ImportPath, f)
			}
		}
	}
	if bounded < 4 {
		t.Errorf("only %d uses of CEL were found", bounded)
	}
}
