package reviews

import (
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
)

// TestLongSelectors checks that a selector of a megabyte is not parsed, which takes 240 MB, and that the answer says that it was ignored.
func TestLongSelectors(t *testing.T) {
	for n, problems := range map[int]int{1000: 0, maxSelector: 2} {
		text := strings.Repeat("a=b,", n/4) + "a=b"
		r := &authorizationv1.ResourceAttributes{
			FieldSelector: &authorizationv1.FieldSelectorAttributes{RawSelector: text},
			LabelSelector: &authorizationv1.LabelSelectorAttributes{RawSelector: text},
		}
		if got := ignoredSelectors(r); len(got) != problems {
			t.Errorf("%d bytes: ignored %q", len(text), got)
		}
		if got := fieldSelector(r.FieldSelector); (got == "") != (problems > 0) {
			t.Errorf("%d bytes: taken as %d bytes", len(text), len(got))
		}
	}
}
