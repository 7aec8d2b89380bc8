package printer

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestColumns(t *testing.T) {
	c, err := newColumns("NAME:.metadata.name,IP:{.status.ip}", false)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := c.PrintObj(&unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "a"}}}, &out); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(out.String()); !slices.Equal(got, []string{"NAME", "IP", "a", "<none>"}) {
		t.Errorf("%q", out.String())
	}
	for _, bad := range []string{"NAME", "NAME:", ":.x", "N:{.x"} {
		if _, err := newColumns(bad, false); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
