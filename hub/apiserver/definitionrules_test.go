package apiserver_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Everything that a schema may say of a field is done, with upstream's texts.
func TestDefinitionSchemas(t *testing.T) {
	t.Parallel()
	h := definitionHub(t, nil)
	h.define(definition(thingVersion("v1", true, `
      {type: object, x-kubernetes-validations: [
          {rule: "self.min <= self.max", message: "min must not exceed max", fieldPath: ".min", reason: FieldValueForbidden},
          {rule: "!has(self.note) || self.note != 'bad'", messageExpression: "'a note like ' + self.note + ' is bad'"}],
        properties: {
          min: {type: integer, default: 0}, max: {type: integer, default: 10},
          note: {type: string, nullable: true}, strict: {type: string},
          port: {x-kubernetes-int-or-string: true}, at: {type: string, format: date-time},
          fixed: {type: string, x-kubernetes-validations: [{rule: "self == oldSelf", message: "fixed cannot change"}]},
          born: {type: string, x-kubernetes-validations: [{rule: "!oldSelf.hasValue() || oldSelf.value() == self", optionalOldSelf: true, message: "born is set once"}]},
          tags: {type: array, x-kubernetes-list-type: set, items: {type: string}},
          ports: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [name], items: {type: object, required: [name], properties: {name: {type: string}, number: {type: integer}}}},
          free: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {known: {type: object, properties: {a: {type: string}}}}},
          pod: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true},
          size: {type: string, enum: [S, L]}}}`)))
	spec := func(name, fields string) string { return thing(name, `,"spec":{`+fields+`}`) }
	h.asks(
		ask{"defaults", "POST", things, spec("a", ``), jsonBody, 201, `"spec":{"max":10,"min":0}`},
		ask{"rule", "POST", things, spec("b", `"min":11`), jsonBody, 422, `Thing.example.dev "b" is invalid: spec.min: Forbidden: min must not exceed max`},
		ask{"messageExpression", "POST", things, spec("b", `"note":"bad"`), jsonBody, 422, `spec: Invalid value: a note like bad is bad`},
		ask{"null where it may be", "POST", things, spec("nulls", `"note":null,"strict":null`), jsonBody, 201, `"note":null}`},
		ask{"integer", "POST", things, spec("int", `"port":80`), jsonBody, 201, `"port":80`},
		ask{"or string", "POST", things, spec("string", `"port":"http"`), jsonBody, 201, `"port":"http"`},
		ask{"nor anything else", "POST", things, spec("b", `"port":true`), jsonBody, 422, `spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"`},
		ask{"format", "POST", things, spec("b", `"at":"yesterday"`), jsonBody, 422, `spec.at: Invalid value: "yesterday": spec.at in body must be of type date-time: "yesterday"`},
		ask{"set", "POST", things, spec("b", `"tags":["x","x"]`), jsonBody, 422, `spec.tags[1]: Duplicate value: "x"`},
		ask{"map", "POST", things, spec("b", `"ports":[{"name":"a"},{"name":"a"}]`), jsonBody, 422, `spec.ports[1]: Duplicate value: {"name":"a"}`},
		ask{"enum", "POST", things, spec("b", `"size":"M"`), jsonBody, 422, `spec.size: Unsupported value: "M": supported values: "S", "L"`},
		ask{"unknown where it may be", "POST", things, spec("free", `"free":{"x":{"y":1},"known":{"a":"1","b":2}}`), jsonBody, 201, `"free":{"known":{"a":"1"},"x":{"y":1}}`},
		ask{"embedded", "POST", things, spec("pod", `"pod":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","nmae":"q"},"spec":{"x":1}}`), jsonBody, 201, `"pod":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"x":1}}`},
		ask{"embedded, strict", "POST", things + "?fieldValidation=Strict", spec("b", `"pod":{"apiVersion":"v1","kind":"Pod","metadata":{"nmae":"q"}}`), jsonBody, 400, `unknown field "spec.pod.metadata.nmae"`},
		ask{"embedded metadata of a wrong type", "POST", things, spec("b", `"pod":{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":1}}}`), jsonBody, 400, `spec.pod.metadata: Invalid value`},
		ask{"embedded without kind", "POST", things, spec("b", `"pod":{"metadata":{"name":"p"}}`), jsonBody, 422, `spec.pod.apiVersion: Required value, spec.pod.kind: Required value`},
		ask{"transition", "POST", things, spec("fixed", `"fixed":"a"`), jsonBody, 201, ""},
		ask{"changed", "PATCH", things + "/fixed", `{"spec":{"fixed":"b"}}`, mergeBody, 422, `spec.fixed: Invalid value: "b": fixed cannot change`},
		ask{"set for the first time", "PATCH", things + "/fixed", `{"spec":{"born":"x"}}`, mergeBody, 200, `"born":"x"`},
		ask{"and for the second", "PATCH", things + "/fixed", `{"spec":{"born":"y"}}`, mergeBody, 422, `born is set once`},
		ask{"rules wait for shape", "POST", things, spec("b", `"min":"x"`), jsonBody, 422, `some validation rules were not checked because the object was invalid; correct the existing errors to complete validation`},
		ask{"metadata", "POST", things, `{"apiVersion":"example.dev/v1","kind":"Thing","metadata":{"name":"b","labels":{"a b":"c"}}}`, jsonBody, 422, `metadata.labels: Invalid value: "a b"`},
		ask{"dry run", "POST", things + "?dryRun=All", spec("dry", `"min":3`), jsonBody, 201, `"min":3`},
		ask{"is not stored", "GET", things + "/dry", "", "", 404, "not found"},
	)
	warned := h.do("POST", things, `{"apiVersion":"example.dev/v1","kind":"Thing","metadata":{"name":"warned","finalizers":["mine"]},"spec":{"sice":1}}`, jsonBody)
	if ws := strings.Join(warned.header.Values("Warning"), "\n"); !strings.Contains(ws, `unknown field \"spec.sice\"`) || !strings.Contains(ws, "prefer a domain-qualified finalizer name") {
		t.Errorf("warnings: %s", ws)
	}
}

// What was wrong before a schema became stricter may stay, as long as it is not touched; defaults that come later are shown at once.
func TestDefinitionRatchets(t *testing.T) {
	t.Parallel()
	h := definitionHub(t, nil)
	h.define(definition(thingVersion("v1", true, `{type: object, properties: {name: {type: string}, other: {type: string}, gone: {type: string}}}`)))
	h.asks(ask{"made", "POST", things, thing("a", `,"spec":{"name":"much too long","gone":"x"}`), jsonBody, 201, ""})
	h.redefine(definition(thingVersion("v1", true, `{type: object, properties: {name: {type: string, maxLength: 3, x-kubernetes-validations: [{rule: "self.startsWith('x')"}]}, other: {type: string}, color: {type: string, default: red}}}`)))
	eventually(t, "the new schema counts", func() bool {
		return strings.Contains(h.do("GET", things+"/a", "").body, `"spec":{"color":"red","name":"much too long"}`)
	})
	h.asks(
		ask{"list", "GET", things, "", "", 200, `"spec":{"color":"red","name":"much too long"}`},
		ask{"another field", "PATCH", things + "/a", `{"spec":{"other":"y"}}`, mergeBody, 200, `"other":"y"`},
		ask{"the field", "PATCH", things + "/a", `{"spec":{"name":"still too long"}}`, mergeBody, 422, `spec.name: Too long: may not be more than 3 bytes`},
		ask{"a new object", "POST", things, thing("b", `,"spec":{"name":"long"}`), jsonBody, 422, "Too long"},
	)
}

// redefine replaces the spec of a definition.
func (h *hub) redefine(manifest string) {
	h.t.Helper()
	const path = definitions + "/things.example.dev"
	var live apiextensionsv1.CustomResourceDefinition
	if err := json.Unmarshal([]byte(h.do("GET", path, "").body), &live); err != nil {
		h.t.Fatal(err)
	}
	manifest = strings.Replace(manifest, "metadata: {name: things.example.dev}", "metadata: {name: things.example.dev, resourceVersion: \""+live.ResourceVersion+"\"}", 1)
	if a := h.do("PUT", path, manifest, yamlBody); a.code != 200 {
		h.t.Fatalf("%d %s", a.code, a.body)
	}
}

// Subresources, columns and selectable fields are as the version declares them.
func TestDefinitionViews(t *testing.T) {
	t.Parallel()
	h := definitionHub(t, nil)
	h.define(definition(thingVersion("v1", true, `{type: object, properties: {replicas: {type: integer}, host: {type: string}, born: {type: string}}}`) + `    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.have, labelSelectorPath: .status.selector}}
    selectableFields: [{jsonPath: .spec.host}]
    additionalPrinterColumns:
    - {name: Host, type: string, jsonPath: .spec.host}
    - {name: Want, type: integer, jsonPath: .spec.replicas, priority: 1, description: wanted}
    - {name: Born, type: date, jsonPath: .spec.born}
`))
	h.asks(
		ask{"status by the wrong way", "POST", things, thing("a", `,"spec":{"replicas":2,"host":"x.example","born":"2026-01-01T00:00:00Z"},"status":{"have":9}`), jsonBody, 201, `"spec":{"born":"2026-01-01T00:00:00Z","host":"x.example","replicas":2}}`},
		ask{"status", "PATCH", things + "/a/status", `{"spec":{"replicas":7},"metadata":{"labels":{"a":"b"}},"status":{"have":1,"selector":"app=a"}}`, mergeBody, 200, `"status":{"have":1,"selector":"app=a"}`},
		ask{"changes nothing else", "GET", things + "/a", "", "", 200, `"generation":1`},
		ask{"scale", "GET", things + "/a/scale", "", "", 200, `"spec":{"replicas":2},"status":{"replicas":1,"selector":"app=a"}`},
		ask{"scaled", "PATCH", things + "/a/scale", `{"spec":{"replicas":5}}`, mergeBody, 200, `"replicas":5`},
		ask{"below zero", "PATCH", things + "/a/scale", `{"spec":{"replicas":-1}}`, mergeBody, 422, `spec.replicas: Invalid value: -1: should be a non-negative integer`},
		ask{"generation", "GET", things + "/a", "", "", 200, `"generation":2`},
		ask{"without replicas", "POST", things, thing("b", `,"spec":{"host":"y.example"}`), jsonBody, 201, ""},
		ask{"no scale", "GET", things + "/b/scale", "", "", 500, `the spec replicas field ".spec.replicas" does not exist`},
		ask{"scaled from nothing", "PATCH", things + "/b/scale", `{"spec":{"replicas":1}}`, mergeBody, 200, `"replicas":1`},
		ask{"scaled to nothing", "PATCH", things + "/b/scale", `{"spec":null}`, mergeBody, 200, ""},
		ask{"selected", "GET", things + "?fieldSelector=spec.host%3Dy.example", "", "", 200, `"name":"b"`},
		ask{"not selected", "GET", things + "?fieldSelector=spec.host%3Dz.example", "", "", 200, `"items":[]`},
		ask{"not selectable", "GET", things + "?fieldSelector=spec.born%3Dx", "", "", 400, "field label not supported: spec.born"},
	)
	var table metav1.Table
	a := h.do("GET", things, "", "Accept: application/json;as=Table;g=meta.k8s.io;v=v1")
	if err := json.Unmarshal([]byte(a.body), &table); err != nil {
		t.Fatal(a.body)
	}
	var names []string
	for _, c := range table.ColumnDefinitions {
		names = append(names, fmt.Sprintf("%s/%s/%d", c.Name, c.Type, c.Priority))
	}
	if got := strings.Join(names, " "); got != "Name/string/0 Host/string/0 Want/integer/1 Born/date/0" {
		t.Errorf("columns: %s", got)
	}
	if got := fmt.Sprint(table.Rows[0].Cells[:3], table.Rows[1].Cells); !strings.HasPrefix(got, "[a x.example 5] [b y.example 0 <nil>]") {
		t.Errorf("rows: %s", got)
	}
	if d, err := time.Parse(time.RFC3339, "2026-01-01T00:00:00Z"); err != nil || time.Since(d) > 0 && table.Rows[0].Cells[3] == "<invalid>" {
		t.Errorf("born: %v", table.Rows[0].Cells[3])
	}
	out, code := h.kubectl("", "get", "th", "-n", "default")
	if code != 0 || !strings.Contains(out, "HOST") || !strings.Contains(out, "x.example") {
		t.Errorf("kubectl get: %s", out)
	}
	if out, code := h.kubectl("", "scale", "thing/a", "-n", "default", "--replicas=3"); code != 0 || !strings.Contains(out, "scaled") {
		t.Errorf("kubectl scale: %s", out)
	}
}

// Two definitions cannot have one name. The second gets it when the first is gone.
func TestDefinitionNames(t *testing.T) {
	t.Parallel()
	h := definitionHub(t, nil)
	h.define(definition(thingVersion("v1", true, "{type: object}")))
	other := strings.NewReplacer("things.example.dev", "items.example.dev", "plural: things, singular: thing, kind: Thing, shortNames: [th]", "plural: items, singular: item, kind: Thing, listKind: ItemList, shortNames: [th]").
		Replace(definition(thingVersion("v1", true, "{type: object}")))
	h.asks(ask{"a second Thing", "POST", definitions, other, yamlBody, 201, ""})
	refused := h.await("items.example.dev", apiextensionsv1.NamesAccepted, apiextensionsv1.ConditionFalse)
	if c := refused.Status.Conditions[0]; c.Reason != "KindConflict" || c.Message != `"Thing" is already in use` {
		t.Errorf("refused: %+v", refused.Status)
	}
	if c := refused.Status.Conditions[1]; c.Type != apiextensionsv1.Established || c.Status != apiextensionsv1.ConditionFalse || c.Reason != "NotAccepted" {
		t.Errorf("refused: %+v", refused.Status)
	}
	h.asks(
		ask{"is not served", "GET", "/apis/example.dev/v1/namespaces/default/items", "", "", 404, ""},
		ask{"the first goes", "DELETE", definitions + "/things.example.dev", "", "", 200, ""},
	)
	h.await("items.example.dev", apiextensionsv1.Established, apiextensionsv1.ConditionTrue)
	h.asks(ask{"the second is served", "GET", "/apis/example.dev/v1/namespaces/default/items", "", "", 200, "ItemList"})
}

// Objects that a finalizer holds hold their definition; nothing new can be made meanwhile.
func TestDefinitionWaitsForItsObjects(t *testing.T) {
	t.Parallel()
	h := definitionHub(t, nil)
	h.define(definition(thingVersion("v1", true, "{type: object}")))
	h.asks(
		ask{"held", "POST", things, `{"apiVersion":"example.dev/v1","kind":"Thing","metadata":{"name":"held","finalizers":["example.dev/x"]}}`, jsonBody, 201, ""},
		ask{"free", "POST", things, thing("free", ""), jsonBody, 201, ""},
		ask{"delete", "DELETE", definitions + "/things.example.dev", "", "", 200, ""},
	)
	eventually(t, "what is free is gone", func() bool { return h.do("GET", things+"/free", "").code == 404 })
	eventually(t, "what is held is marked", func() bool { return strings.Contains(h.do("GET", things+"/held", "").body, "deletionTimestamp") })
	h.await("things.example.dev", apiextensionsv1.Terminating, apiextensionsv1.ConditionTrue)
	h.asks(
		ask{"create", "POST", things, thing("late", ""), jsonBody, 403, "create not allowed while custom resource definition is terminating"},
		ask{"let go", "PATCH", things + "/held", `{"metadata":{"finalizers":null}}`, mergeBody, 200, ""},
	)
	eventually(t, "the definition is gone", func() bool { return h.do("GET", definitions+"/things.example.dev", "").code == 404 })
}

// Definitions that no hub should take are refused, in bounded time.
func TestBadDefinitions(t *testing.T) {
	t.Parallel()
	h := definitionHub(t, nil)
	deep := strings.Repeat(`{type: object, properties: {a: `, 400) + `{type: object}` + strings.Repeat(`}}`, 400)
	for name, tt := range map[string]struct{ manifest, says string }{
		"not structural":  {definition(thingVersion("v1", true, `{properties: {a: {type: string}}}`)), `type: Required value: must not be empty for specified object fields`},
		"no schema":       {definition("  - {name: v1, served: true, storage: true}\n"), "spec.versions[0].schema.openAPIV3Schema: Required value"},
		"costly":          {definition(thingVersion("v1", true, `{type: object, properties: {a: {type: array, items: {type: array, items: {type: string}}}}, x-kubernetes-validations: [{rule: "self.a.all(x, x.all(y, self.a.all(z, z.all(w, w == y))))"}]}`)), "estimated rule cost exceeds budget by factor of more than 100x"},
		"senseless rule":  {definition(thingVersion("v1", true, `{type: object, x-kubernetes-validations: [{rule: "self.nothing ="}]}`)), "compilation failed"},
		"bad default":     {definition(thingVersion("v1", true, `{type: object, properties: {a: {type: integer, default: x}}}`)), `default: Invalid value: "string"`},
		"two stored":      {definition(thingVersion("v1", true, "{type: object}"), thingVersion("v2", true, "{type: object}")), "must have exactly one version marked as storage version"},
		"wrong name":      {strings.Replace(definition(thingVersion("v1", true, "{type: object}")), "name: things.example.dev", "name: others.example.dev", 1), `must be spec.names.plural+"."+spec.group`},
		"community group": {strings.ReplaceAll(definition(thingVersion("v1", true, "{type: object}")), "example.dev", "things.k8s.io"), "protected groups must have approval annotation"},
		"deep":            {definition(thingVersion("v1", true, deep)), ""},
	} {
		a := h.do("POST", definitions+"?dryRun=All", tt.manifest, yamlBody)
		if tt.says != "" && a.code != 422 || a.code >= 500 || !strings.Contains(a.body, strings.ReplaceAll(tt.says, `"`, `\"`)) {
			t.Errorf("%s: %d %.600s", name, a.code, a.body)
		}
	}
	warned := h.do("POST", definitions+"?dryRun=All", definition(thingVersion("v1", true, `{type: object, properties: {a: {type: string, format: nonsense}}}`)), yamlBody)
	if ws := warned.header.Values("Warning"); warned.code != 201 || len(ws) != 1 || !strings.Contains(ws[0], `unrecognized format \"nonsense\"`) {
		t.Errorf("an unknown format: %d %q", warned.code, ws)
	}
}
