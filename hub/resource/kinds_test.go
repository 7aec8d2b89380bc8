package resource_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

// Every kind declares all that handlers rely on.
func TestKindsAreComplete(t *testing.T) {
	for _, k := range builtin.New().All() {
		t.Run(k.GVK.String(), func(t *testing.T) {
			if k.Virtual() {
				testVirtual(t, k)
				return
			}
			for what, ok := range map[string]bool{
				"Plural": k.Plural != "", "Singular": k.Singular != "", "Verbs": len(k.Verbs) > 0,
				"Default": k.Rules.Default != nil, "ValidateCreate": k.Rules.ValidateCreate != nil,
				"ValidateUpdate": k.Rules.ValidateUpdate != nil, "Fields": k.Fields != nil, "Columns": k.Columns != nil, "Codec": k.Codec != nil,
				"owner index": k.Indexes["owner"] != nil,
			} {
				if !ok {
					t.Errorf("%s is missing", what)
				}
			}
			if got := k.New().GetObjectKind().GroupVersionKind(); got != k.GVK {
				t.Errorf("New makes a %s", got)
			}
			if got, want := k.NewList().GetObjectKind().GroupVersionKind(), k.GVK.GroupVersion().WithKind(k.GVK.Kind+"List"); got != want {
				t.Errorf("NewList makes a %s", got)
			}
			if !slices.IsSorted(k.Verbs) {
				t.Errorf("verbs %v are not in the order of discovery", k.Verbs)
			}
			for name, s := range k.Subresources {
				testSubresource(t, name, s)
			}
		})
	}
}

// A kind that is only answered has a name, a body and defaults, and nothing that needs stored objects.
func testVirtual(t *testing.T, k *resource.Kind) {
	for what, ok := range map[string]bool{
		"Plural": k.Plural != "", "Singular": k.Singular != "", "Default": k.Rules.Default != nil, "Codec": k.Codec != nil,
		"its only verb": slices.Equal(k.Verbs, []string{"create"}),
	} {
		if !ok {
			t.Errorf("%s is missing", what)
		}
	}
	if got := k.New().GetObjectKind().GroupVersionKind(); got != k.GVK {
		t.Errorf("New makes a %s", got)
	}
	if k.NewList != nil || k.Rules.PrepareUpdate != nil || k.Rules.ValidateUpdate != nil {
		t.Error("it can be listed or updated")
	}
}

func testSubresource(t *testing.T, name string, s *resource.Subresource) {
	if s.Name != name || s.GVK.Kind == "" || len(s.Verbs) == 0 {
		t.Errorf("subresource %s: name %q, kind %q, verbs %v", name, s.Name, s.GVK.Kind, s.Verbs)
	}
	shapes := 0
	for _, is := range []bool{s.Rules != nil, s.Get != nil && s.Put != nil && s.New != nil, s.Connect && s.New != nil, s.New != nil && s.Get == nil && !s.Connect && slices.Equal(s.Verbs, []string{"create"})} {
		if is {
			shapes++
		}
	}
	if shapes != 1 {
		t.Errorf("subresource %s is of %d shapes, want one of: object, derived, stream, verb", name, shapes)
	}
}

// served finds a kind by its path.
func served(table *resource.Kinds, group, version, plural string) (*resource.Kind, bool) {
	for _, k := range table.All() {
		if k.GVK.Group == group && k.GVK.Version == version && k.Plural == plural {
			return k, true
		}
	}
	return nil, false
}

func TestKindsLookup(t *testing.T) {
	table := builtin.New()
	pods, ok := served(table, "", "v1", "pods")
	if !ok || pods.GVK != kube.Pod {
		t.Fatalf("pods: %v, %v", pods, ok)
	}
	if _, ok := served(table, "", "v2", "pods"); ok {
		t.Error("v2 pods exist")
	}
	if k, ok := table.Lookup(kube.Deployment); !ok || k.Plural != "deployments" {
		t.Errorf("Deployment: %v, %v", k, ok)
	}
}

// Readers of a table that grows see it whole, before or after.
func TestKindsChange(t *testing.T) {
	table := builtin.New()
	before := table.All()
	widget := resource.Custom{GVK: schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"}, Plural: "widgets", Namespaced: true}.Kind()
	if err := table.Add(widget); err != nil {
		t.Fatal(err)
	}
	if err := table.Add(widget); err == nil {
		t.Error("the same kind twice is accepted")
	}
	gadget := resource.Custom{GVK: schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Gadget"}, Plural: "widgets"}.Kind()
	if err := table.Add(gadget); err == nil {
		t.Error("the same plural twice is accepted")
	}
	if err := table.Add(&resource.Kind{GVK: schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Gizmo"}, Plural: "gizmos"}); err == nil {
		t.Error("a kind that nothing can read is accepted")
	}
	if len(table.All()) != len(before)+1 {
		t.Errorf("%d kinds, want %d", len(table.All()), len(before)+1)
	}
	if _, ok := served(table, "example.com", "v1", "widgets"); !ok {
		t.Error("widgets are not found")
	}
	widget.FieldLabels = []string{"metadata.name"}
	if _, err := widget.FieldSelector(fields.OneTermEqualSelector("metadata.name", "a")); err != nil {
		t.Errorf("a field of a kind that upstream does not know: %v", err)
	}
	if _, err := widget.FieldSelector(fields.OneTermEqualSelector("spec.x", "a")); err == nil || err.Error() != "field label not supported: spec.x" {
		t.Errorf("unknown field: %v", err)
	}
	table.Remove(widget.GVK)
	if _, ok := table.Lookup(widget.GVK); ok {
		t.Error("Widget is still there")
	}
	if !slices.Equal(table.All(), before) {
		t.Error("removing did not restore the table")
	}
}

// A follower of the kinds sees the set as it is at first and at last, however many changes come in between; a change of
// nothing is none.
func TestKindsAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kinds := builtin.New()
		widget := resource.Custom{GVK: schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"}, Plural: "widgets"}.Kind()
		ctx, cancel := context.WithCancel(t.Context())
		seen, hold := make(chan int, 10), make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for all := range kinds.Changes(ctx) {
				seen <- len(all)
				<-hold
			}
		}()
		n, first := <-seen, kinds.Generation()
		for range 3 { // while the follower is busy
			if err := kinds.Add(widget); err != nil {
				t.Fatal(err)
			}
			kinds.Remove(widget.GVK)
		}
		if err := kinds.Add(widget); err != nil {
			t.Fatal(err)
		}
		if got := kinds.Generation() - first; got != 7 {
			t.Errorf("seven changes are counted as %d", got)
		}
		hold <- struct{}{}
		if got := <-seen; got != n+1 {
			t.Errorf("%d kinds after the changes, want %d", got, n+1)
		}
		hold <- struct{}{}
		kinds.Remove(kube.GVK{Kind: "Nothing"})
		synctest.Wait()
		if len(seen) != 0 || kinds.Generation()-first != 7 {
			t.Error("removing a kind that is not served counts as a change")
		}
		cancel()
		<-ended
	})
}

func TestKeys(t *testing.T) {
	table := builtin.New()
	events, _ := served(table, "events.k8s.io", "v1", "events")
	deployments, _ := table.Lookup(kube.Deployment)
	nodes, _ := table.Lookup(kube.Node)
	for _, c := range []struct {
		kind            *resource.Kind
		namespace, name string
		want            string
	}{
		{deployments, "ns", "web", "/apps/deployments/ns/web"},
		{nodes, "", "pi-1", "/core/nodes/pi-1"},
		{events, "ns", "e", "/core/events/ns/e"}, // a view lives where its stored kind does
	} {
		key := resource.Key(c.kind, c.namespace, c.name)
		if key != c.want {
			t.Errorf("Key = %q, want %q", key, c.want)
		}
		namespace, name, ok := resource.NamesOf(c.kind, key)
		if !ok || namespace != c.namespace || name != c.name {
			t.Errorf("NamesOf(%q) = %q, %q, %v", key, namespace, name, ok)
		}
	}
	if _, _, ok := resource.NamesOf(nodes, "/core/pods/a/b"); ok {
		t.Error("a pod's key is taken for a node's")
	}
	if got := resource.Prefix(deployments, ""); got != "/apps/deployments/" {
		t.Errorf("Prefix = %q", got)
	}
}
