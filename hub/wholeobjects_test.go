package hub

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// things is a hub with a definition of things in two versions. An update must leave their color as it is, by a rule that needs what
// was stored before.
type things struct {
	*testing.T
	*Hub
	ctx   context.Context
	kind  *resource.Kind // v1, which is stored
	other *resource.Kind // v2
	links string         // spec.links of each thing
}

var thingGVK = kube.GVK{Group: "example.dev", Version: "v1", Kind: "Thing"}

func startThings(t *testing.T, size int) *things {
	h, stop := startHub(t, "")
	t.Cleanup(stop)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute) // a loop that fails is not waited for
	t.Cleanup(cancel)
	w := &things{T: t, Hub: h, ctx: ctx, links: strings.Repeat("x", size)}
	version := func(name string, stored bool) string {
		return fmt.Sprintf(`{name: %s, served: true, storage: %t, selectableFields: [{jsonPath: .spec.color}],
			subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}},
			schema: {openAPIV3Schema: {type: object, properties: {status: {type: object, x-kubernetes-preserve-unknown-fields: true}, spec: {type: object,
				properties: {color: {type: string}, replicas: {type: integer}, links: {type: string}, note: {type: string}},
				x-kubernetes-validations: [{rule: self.color == oldSelf.color && self.links == oldSelf.links, message: it stays}]}}}}}`, name, stored)
	}
	w.create(kube.CustomResourceDefinition, `{metadata: {name: things.example.dev}, spec: {group: example.dev, scope: Namespaced, names: {plural: things, kind: Thing},
		versions: [`+version("v1", true)+", "+version("v2", false)+`]}}`)
	for range h.kinds.Changes(w.ctx) {
		if _, ok := h.kinds.Lookup(thingGVK); ok {
			break
		}
	}
	w.kind, _ = h.kinds.Lookup(thingGVK)
	w.other, _ = h.kinds.Lookup(kube.GVK{Group: "example.dev", Version: "v2", Kind: "Thing"})
	w.create(kube.Namespace, `{metadata: {name: ns}}`)
	return w
}

func (w *things) create(gvk kube.GVK, manifest string) kube.Object {
	w.Helper()
	obj, err := w.try(gvk, manifest)
	if err != nil {
		w.Fatal(err)
	}
	return obj
}

func (w *things) try(gvk kube.GVK, manifest string) (kube.Object, error) {
	w.Helper()
	k, ok := w.kinds.Lookup(gvk)
	if !ok {
		w.Fatalf("%s is not served", gvk)
	}
	text, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		w.Fatal(err)
	}
	obj, _, err := k.DecodeStrict(text)
	if err != nil {
		w.Fatal(err)
	}
	res, err := w.registry.Create(w.ctx, resource.Target{Kind: k, Namespace: obj.GetNamespace()}, obj, nil)
	if err != nil {
		return nil, err
	}
	return res.Object.(kube.Object), nil
}

// make creates a thing; more are fields of its metadata.
func (w *things) make(name, more string) kube.Object {
	w.Helper()
	return w.create(thingGVK, fmt.Sprintf(`{metadata: {name: %s, namespace: ns, labels: {app: web}, annotations: {note: kept}%s}, spec: {color: red, replicas: 2, links: %q}}`, name, more, w.links))
}

func (w *things) target(name, sub string) resource.Target {
	return resource.Target{Kind: w.kind, Namespace: "ns", Name: name, Subresource: sub}
}

// whole checks that JSON is all of a thing.
func (w *things) whole(what string, data []byte) *unstructured.Unstructured {
	w.Helper()
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		w.Fatalf("%s: %.200s: %v", what, data, err)
	}
	color, _, _ := unstructured.NestedString(u.Object, "spec", "color")
	links, _, _ := unstructured.NestedString(u.Object, "spec", "links")
	if color != "red" || links != w.links || u.GetAnnotations()["note"] != "kept" || u.GetLabels()["app"] != "web" {
		w.Errorf("%s: this is not all of it: %.300s", what, data)
	}
	return u
}

// read returns a thing as it is stored, which must be all of it.
func (w *things) read(what, name string) *unstructured.Unstructured {
	w.Helper()
	res, err := w.registry.Get(w.ctx, w.target(name, ""), nil)
	if err != nil {
		w.Fatal(err)
	}
	return w.whole(what, res.JSON)
}

// TestCustomObjectsStayWhole checks that nobody but loops sees the part of a custom object that the typed cache keeps: no client by any
// verb, no rule of a schema, no policy and no subresource; and that a loop which writes such a part changes nothing else. The
// small objects are such as the cache keeps decoded for a while, the large ones are not.
func TestCustomObjectsStayWhole(t *testing.T) {
	for name, size := range map[string]int{"small": 10, "large": 100_000} {
		t.Run(name, func(t *testing.T) {
			w := startThings(t, size)
			w.make("a", "")
			t.Run("reads", func(t *testing.T) { w.as(t).checkReads() })
			t.Run("writes", func(t *testing.T) { w.as(t).checkWrites() })
			t.Run("scales", func(t *testing.T) { w.as(t).checkScales() })
			t.Run("policies", func(t *testing.T) { w.as(t).checkPolicies() })
			t.Run("loops", func(t *testing.T) { w.as(t).checkLoops() })
			t.Run("deletions", func(t *testing.T) { w.as(t).checkDeletions() })
		})
	}
}

func (w *things) as(t *testing.T) *things {
	out := *w
	out.T = t
	return &out
}

func (w *things) checkReads() {
	w.read("get", "a")
	for _, k := range []*resource.Kind{w.kind, w.other} {
		all := resource.Target{Kind: k, Namespace: "ns"}
		for _, opts := range []metav1.ListOptions{{}, {LabelSelector: "app=web"}, {LabelSelector: "app"}, {FieldSelector: "spec.color=red"}, {FieldSelector: "metadata.name=a", LabelSelector: "app=web"}} {
			what := fmt.Sprintf("%s %q %q", k.GVK.Version, opts.LabelSelector, opts.FieldSelector)
			list, err := w.registry.List(w.ctx, all, &opts)
			if err != nil {
				w.Fatal(err)
			}
			n := 0
			for portion, err := range list.Portions(w.ctx) {
				if err != nil {
					w.Fatal(err)
				}
				for _, item := range portion {
					w.whole("list "+what, item)
					n++
				}
			}
			if n != 1 {
				w.Errorf("list %s: %d objects", what, n)
			}
			opts.SendInitialEvents, opts.ResourceVersionMatch = new(bool), metav1.ResourceVersionMatchNotOlderThan
			*opts.SendInitialEvents = true
			seen, err := w.registry.Watch(w.ctx, all, &opts)
			if err != nil {
				w.Fatal(err)
			}
			events, err := seen.Next(w.ctx)
			if err != nil || events[0].Type != watch.Added {
				w.Fatalf("watch %s: %v, %v", what, events, err)
			}
			w.whole("watch "+what, events[0].JSON)
			seen.Close()
		}
		for _, opts := range []metav1.ListOptions{{LabelSelector: "app!=web"}, {FieldSelector: "spec.color=blue"}} {
			if list, err := w.registry.List(w.ctx, all, &opts); err != nil || len(list.Items) != 0 {
				w.Errorf("%v: %v, %v", opts, list, err)
			}
		}
	}
}

func (w *things) checkWrites() {
	selected, err := w.registry.Watch(w.ctx, resource.Target{Kind: w.kind, Namespace: "ns"}, &metav1.ListOptions{LabelSelector: "app=web", FieldSelector: "spec.color=red"})
	if err != nil {
		w.Fatal(err)
	}
	defer selected.Close()
	events, err := selected.Next(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	w.whole("first event", events[0].JSON)
	patch := func(sub string, pt types.PatchType, text string) func() (*registry.Result, error) {
		return func() (*registry.Result, error) {
			return w.registry.Patch(w.ctx, w.target("a", sub), pt, []byte(text), &metav1.PatchOptions{FieldManager: "m"})
		}
	}
	writes := []func() (*registry.Result, error){
		patch("", types.MergePatchType, `{"spec":{"note":"1"}}`),
		patch("", types.JSONPatchType, `[{"op":"replace","path":"/spec/note","value":"2"}]`),
		patch("", types.ApplyYAMLPatchType, `{"apiVersion":"example.dev/v1","kind":"Thing","metadata":{"name":"a","labels":{"x":"y"}}}`),
		patch("status", types.MergePatchType, `{"status":{"replicas":1}}`),
		func() (*registry.Result, error) {
			u := w.read("before an update", "a")
			u.SetLabels(map[string]string{"app": "web", "z": "z"})
			return w.registry.Update(w.ctx, w.target("a", ""), u, &metav1.UpdateOptions{})
		},
	}
	for i, write := range writes {
		got, err := write()
		if err != nil {
			w.Fatalf("write %d: %v", i, err)
		}
		w.whole(fmt.Sprint("answer to write ", i), got.JSON)
		events, err := selected.Next(w.ctx)
		if err != nil || events[0].Type != watch.Modified {
			w.Fatalf("write %d: %v, %v", i, events, err)
		}
		w.whole(fmt.Sprint("event of write ", i), events[0].JSON)
	}
	_, err = w.registry.Patch(w.ctx, w.target("a", ""), types.MergePatchType, []byte(`{"spec":{"color":"blue"}}`), &metav1.PatchOptions{})
	if err == nil || !strings.Contains(err.Error(), "it stays") {
		w.Errorf("a rule about what was stored: %v", err)
	}
}

func (w *things) checkScales() {
	scale, err := autoscaling{w.Hub}.Scale(w.ctx, "ns", autoscalingv2.CrossVersionObjectReference{APIVersion: "example.dev/v1", Kind: "Thing", Name: "a"})
	if err != nil || scale.Spec.Replicas != 2 || scale.Status.Replicas != 1 {
		w.Errorf("for an autoscaler: %v, %v", scale, err)
	}
	if err := w.objects.CatchUp(w.ctx); err != nil {
		w.Fatal(err)
	}
	for _, version := range []string{"v1", "v2"} {
		owner, replicas, err := scales{w.kinds, w.objects}.Scale(w.ctx, &metav1.OwnerReference{APIVersion: "example.dev/" + version, Kind: "Thing", Name: "a"}, "ns")
		if err != nil || replicas != 2 || owner.GetName() != "a" {
			w.Errorf("for a disruption budget: %v, %d, %v", owner, replicas, err)
		}
	}
	owner, _, err := scales{w.kinds, w.objects}.Scale(w.ctx, &metav1.OwnerReference{APIVersion: "example.dev/v1", Kind: "Thing", Name: "none"}, "ns")
	if owner != nil || err != nil {
		w.Errorf("of none: %v, %v", owner, err)
	}
}

// checkPolicies has policies whose params are things, and one that looks at what a thing was.
func (w *things) checkPolicies() {
	policy := func(name, resources, group, params, expression string) {
		w.create(kube.GVK{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingAdmissionPolicy"}, fmt.Sprintf(`{metadata: {name: %s}, spec: {
			%s, validations: [{expression: %q}], matchConstraints: {resourceRules: [{apiGroups: [%q], apiVersions: ["*"], resources: [%s], operations: [CREATE, UPDATE, DELETE]}]}}}`,
			name, params, expression, group, resources))
	}
	bind := func(name, ref string) {
		w.create(kube.GVK{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingAdmissionPolicyBinding"},
			fmt.Sprintf(`{metadata: {name: %s}, spec: {policyName: %s, validationActions: [Deny]%s}}`, name, name, ref))
	}
	same := `!(object.metadata.name in ["right", "wrong-%s"]) || object.data.color == params.spec.color && params.metadata.annotations.note == "kept" && size(params.spec.links) == %d`
	param := `paramKind: {apiVersion: example.dev/%s, kind: Thing}`
	policy("named", "configmaps", "", fmt.Sprintf(param, "v1"), fmt.Sprintf(same, "named", len(w.links)))
	bind("named", `, paramRef: {name: a, parameterNotFoundAction: Deny}`)
	policy("selected", "configmaps", "", fmt.Sprintf(param, "v2"), fmt.Sprintf(same, "selected", len(w.links)))
	bind("selected", `, paramRef: {selector: {matchLabels: {app: web}}, parameterNotFoundAction: Deny}`)
	policy("before", "things", "example.dev", "failurePolicy: Fail", fmt.Sprintf(`request.operation == "CREATE" || oldObject.spec.color == "red" && size(oldObject.spec.links) == %d`, len(w.links)))
	bind("before", "")
	if _, err := w.try(kube.ConfigMap, `{metadata: {name: right, namespace: ns}, data: {color: red}}`); err != nil {
		w.Error(err)
	}
	for _, name := range []string{"named", "selected"} {
		_, err := w.try(kube.ConfigMap, fmt.Sprintf(`{metadata: {name: wrong-%s, namespace: ns}, data: {color: blue}}`, name))
		if err == nil || !strings.Contains(err.Error(), "'"+name+"'") {
			w.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.registry.Patch(w.ctx, w.target("a", ""), types.MergePatchType, []byte(`{"spec":{"note":"3"}}`), &metav1.PatchOptions{}); err != nil {
		w.Error(err)
	}
}

// checkLoops writes what a loop sees of an object.
func (w *things) checkLoops() {
	client := w.registry.Client()
	seen := func(name string) kube.Object {
		w.Helper()
		if err := client.CatchUp(w.ctx); err != nil {
			w.Fatal(err)
		}
		obj, ok := client.Get(thingGVK, "ns", name)
		if !ok {
			w.Fatal("loops do not see it")
		}
		if _, ok := obj.(*metav1.PartialObjectMetadata); !ok {
			w.Fatalf("loops see a %T", obj)
		}
		return obj
	}
	before := w.read("before", "a")
	next := seen("a").DeepCopyObject().(kube.Object)
	next.SetFinalizers([]string{"example.dev/hold"})
	stale := next.DeepCopyObject().(kube.Object)
	got, err := client.Update(w.ctx, next, "")
	if err != nil {
		w.Fatal(err)
	}
	if u, ok := got.(*unstructured.Unstructured); !ok || len(u.GetFinalizers()) != 1 {
		w.Errorf("the answer is %T %v", got, got.GetFinalizers())
	}
	if u := w.read("after an update", "a"); len(u.GetFinalizers()) != 1 || u.GetGeneration() != before.GetGeneration() || len(u.GetManagedFields()) < len(before.GetManagedFields()) {
		w.Errorf("finalizers %v, generation %d, was %d, managers %v", u.GetFinalizers(), u.GetGeneration(), before.GetGeneration(), u.GetManagedFields())
	}
	if _, err := client.Update(w.ctx, stale, ""); !apierrors.IsConflict(err) {
		w.Errorf("an update of an old part: %v", err)
	}
	old := seen("a")
	next = old.DeepCopyObject().(kube.Object)
	next.SetFinalizers(nil)
	if err := client.Commit(w.ctx, []control.Write{{Object: next, Old: old}}); err != nil {
		w.Fatal(err)
	}
	u := w.read("after a commit", "a")
	if _, there, _ := unstructured.NestedFieldNoCopy(u.Object, "metadata", "finalizers"); there || len(u.GetManagedFields()) == 0 {
		w.Errorf("finalizers %v, managers %v", u.GetFinalizers(), u.GetManagedFields())
	}
	if err := client.Commit(w.ctx, []control.Write{{Object: next, Old: old}}); !apierrors.IsConflict(err) {
		w.Errorf("a commit of an old part: %v", err)
	}
	if _, err := client.Update(w.ctx, seen("a"), "status"); !apierrors.IsBadRequest(err) {
		w.Errorf("a part as a status: %v", err)
	}
	w.read("at the end", "a")
}

// checkDeletions lets garbage collection write a thing, and ends it.
func (w *things) checkDeletions() {
	owner := w.create(kube.Secret, `{metadata: {name: owner, namespace: ns}}`)
	w.make("dependent", fmt.Sprintf(`, ownerReferences: [{apiVersion: v1, kind: Secret, name: owner, uid: %s}]`, owner.GetUID()))
	changes, err := w.registry.Watch(w.ctx, resource.Target{Kind: w.kind, Namespace: "ns"}, &metav1.ListOptions{FieldSelector: "metadata.name=dependent"})
	if err != nil {
		w.Fatal(err)
	}
	defer changes.Close()
	secrets, _ := w.kinds.Lookup(kube.Secret)
	orphan, foreground := metav1.DeletePropagationOrphan, metav1.DeletePropagationForeground
	if _, err := w.registry.Delete(w.ctx, resource.Target{Kind: secrets, Namespace: "ns", Name: "owner"}, &metav1.DeleteOptions{PropagationPolicy: &orphan}); err != nil {
		w.Fatal(err)
	}
	for orphaned := false; !orphaned; {
		events, err := changes.Next(w.ctx)
		if err != nil {
			w.Fatal(err)
		}
		for _, e := range events {
			orphaned = len(w.whole("while it is orphaned", e.JSON).GetOwnerReferences()) == 0
		}
	}
	res, err := w.registry.Delete(w.ctx, w.target("dependent", ""), &metav1.DeleteOptions{PropagationPolicy: &foreground})
	if err != nil {
		w.Fatal(err)
	}
	w.whole("a deletion that waits", res.JSON)
	for gone := false; !gone; { // the collector takes its finalizer away
		events, err := changes.Next(w.ctx)
		if err != nil {
			w.Fatal(err)
		}
		for _, e := range events {
			w.whole("while it is deleted", e.JSON)
			gone = e.Type == watch.Deleted
		}
	}
	list, err := w.registry.DeleteCollection(w.ctx, resource.Target{Kind: w.kind, Namespace: "ns"}, &metav1.DeleteOptions{}, &metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil || len(list.Items) != 1 {
		w.Fatalf("%v, %v", list, err)
	}
	w.whole("a deleted collection", list.Items[0])
}
