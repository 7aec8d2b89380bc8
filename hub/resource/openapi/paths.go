package openapi

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"petrel.dev/petrel/hub/resource"
)

// apiPath is one path of the API with its operations, independent of the OpenAPI version.
type apiPath struct {
	path       string
	parameters []string // of the path: namespace, name
	operations []operation
}

type operation struct {
	method string // get, put, post, delete, patch, head, options
	action string // Kubernetes' name for it
	id     string
	gvk    schema.GroupVersionKind
	body   string // definition of the request body; "" for none
	answer string // definition of the answer; "" for text
	query  []parameter
	of     *resource.Kind // whose forms bodies and answers have
}

type parameter struct{ name, kind, about string }

var (
	dryRun          = parameter{"dryRun", "string", "When present, indicates that modifications should not be persisted. Valid value: All."}
	fieldManager    = parameter{"fieldManager", "string", "The name of the actor that makes this change."}
	fieldValidation = parameter{"fieldValidation", "string", "What to do about unknown or duplicate fields: Ignore, Warn (the default) or Strict."}
	force           = parameter{"force", "boolean", "Take over fields of other managers; for apply patches."}
	pretty          = parameter{"pretty", "string", "If 'true', the output is indented."}

	writing  = []parameter{dryRun, fieldManager, fieldValidation}
	deleting = []parameter{dryRun, {"gracePeriodSeconds", "integer", "Seconds until the object goes; 0 means at once."},
		{"orphanDependents", "boolean", "Deprecated: use propagationPolicy."}, {"propagationPolicy", "string", "Orphan, Background or Foreground."}}
	listing = []parameter{
		{"allowWatchBookmarks", "boolean", "Ask for events of type BOOKMARK."},
		{"continue", "string", "Where the last page ended."},
		{"fieldSelector", "string", "Restrict the list by fields."},
		{"labelSelector", "string", "Restrict the list by labels."},
		{"limit", "integer", "The largest number of items of a page."},
		{"resourceVersion", "string", "What the answer must at least, or exactly, reflect."},
		{"resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."},
		{"sendInitialEvents", "boolean", "Begin a watch with the current objects."},
		{"timeoutSeconds", "integer", "How long the call may take."},
		{"watch", "boolean", "Follow the changes instead of listing."},
	}
)

// paths returns those below which a kind is served.
func paths(k *resource.Kind) []apiPath {
	base := root(k.GVK.GroupVersion())
	kind := definitionOf(k)
	if kind == "" {
		return nil
	}
	list := listDefinitionOf(k)
	status := definition(schema.GroupVersionKind{Kind: "Status"})
	options := definition(schema.GroupVersionKind{Kind: "DeleteOptions"})
	has := func(verb string) bool { return slices.Contains(k.Verbs, verb) }

	var out []apiPath
	var scope []string
	collection := base + "/" + k.Plural
	if k.Namespaced {
		if has("list") {
			out = append(out, apiPath{path: collection, operations: []operation{
				{method: "get", action: "list", id: "list" + k.GVK.Kind + "ForAllNamespaces", gvk: k.GVK, answer: list, query: listing, of: k}}})
		}
		collection, scope = base+"/namespaces/{namespace}/"+k.Plural, []string{"namespace"}
	}
	all := apiPath{path: collection, parameters: scope}
	one := apiPath{path: collection + "/{name}", parameters: append([]string{"name"}, scope...)}
	for _, o := range []struct {
		verb string
		at   *apiPath
		op   operation
	}{
		{"list", &all, operation{method: "get", action: "list", answer: list, query: listing}},
		{"create", &all, operation{method: "post", action: "post", body: kind, answer: kind, query: writing}},
		{"deletecollection", &all, operation{method: "delete", action: "deletecollection", body: options, answer: status, query: append(slices.Clone(listing), deleting...)}},
		{"get", &one, operation{method: "get", action: "get", answer: kind}},
		{"update", &one, operation{method: "put", action: "put", body: kind, answer: kind, query: writing}},
		{"patch", &one, operation{method: "patch", action: "patch", body: patchBody, answer: kind, query: append(slices.Clone(writing), force)}},
		{"delete", &one, operation{method: "delete", action: "delete", body: options, answer: status, query: deleting}},
	} {
		if has(o.verb) {
			o.op.gvk, o.op.id, o.op.of = k.GVK, o.verb+k.GVK.Kind, k
			o.at.operations = append(o.at.operations, o.op)
		}
	}
	for _, p := range []apiPath{all, one} {
		if len(p.operations) > 0 {
			out = append(out, p)
		}
	}
	return append(out, subresources(k, one)...)
}

// patchBody is the one body type that is no kind.
const patchBody = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"

// proxyPaths returns the path of a proxy, and that of all below it.
func proxyPaths(k *resource.Kind, p apiPath, id string, gvk schema.GroupVersionKind) []apiPath {
	below := apiPath{path: p.path + "/{path}", parameters: append(slices.Clone(p.parameters), "path")}
	for _, method := range []string{"get", "post", "put", "delete", "patch", "head", "options"} {
		full := "connect" + strings.ToUpper(method[:1]) + method[1:] + id
		p.operations = append(p.operations, operation{method: method, action: "connect", id: full, gvk: gvk, of: k})
		below.operations = append(below.operations, operation{method: method, action: "connect", id: full + "WithPath", gvk: gvk, of: k})
	}
	return []apiPath{p, below}
}

func subresources(k *resource.Kind, one apiPath) []apiPath {
	var out []apiPath
	for name, s := range k.Subresources {
		gvk := s.GVK
		if gvk.Empty() {
			gvk = k.GVK
		}
		p := apiPath{path: one.path + "/" + name, parameters: one.parameters}
		id := k.GVK.Kind + strings.ToUpper(name[:1]) + name[1:]
		if s.Proxy {
			out = append(out, proxyPaths(k, p, id, gvk)...)
			continue
		}
		if s.Connect {
			p.operations = append(p.operations, operation{method: "get", action: "connect", id: "connectGet" + id, gvk: gvk, of: k})
			if name != "log" {
				p.operations = append(p.operations, operation{method: "post", action: "connect", id: "connectPost" + id, gvk: gvk, of: k})
			}
			out = append(out, p)
			continue
		}
		def := definition(gvk)
		if gvk == k.GVK {
			def = definitionOf(k)
		}
		for _, v := range s.Verbs {
			op := operation{id: v + id, gvk: gvk, answer: def, of: k}
			switch v {
			case "get":
				op.method, op.action = "get", "get"
			case "update":
				op.method, op.action, op.body, op.query = "put", "put", def, writing
			case "patch":
				op.method, op.action, op.body, op.query = "patch", "patch", patchBody, append(slices.Clone(writing), force)
			case "create":
				op.method, op.action, op.body, op.query = "post", "post", def, writing
			default:
				continue
			}
			p.operations = append(p.operations, op)
		}
		if len(p.operations) > 0 {
			out = append(out, p)
		}
	}
	return out
}

var bodyTypes = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}

// answers returns the media types of the operation's answer.
func (o operation) answers() []string {
	if o.of.Unstructured() {
		return bodyTypes[:2]
	}
	return bodyTypes
}

// bodies returns the media types of its body.
func (o operation) bodies() []string {
	if o.body != patchBody {
		return o.answers()
	}
	var out []string
	for _, p := range o.of.PatchTypes() {
		out = append(out, string(p))
	}
	return out
}

func (o operation) extensions() spec.VendorExtensible {
	return spec.VendorExtensible{Extensions: spec.Extensions{
		"x-kubernetes-action":             o.action,
		"x-kubernetes-group-version-kind": gvkValue(o.gvk),
	}}
}

func (p apiPath) v3() *spec3.Path {
	out := &spec3.Path{}
	for _, n := range p.parameters {
		out.Parameters = append(out.Parameters, &spec3.Parameter{ParameterProps: spec3.ParameterProps{
			Name: n, In: "path", Required: true, Description: n + " of the " + kindOf(p), Schema: spec.StringProperty()}})
	}
	out.Parameters = append(out.Parameters, query3(pretty))
	for _, o := range p.operations {
		op := &spec3.Operation{VendorExtensible: o.extensions()}
		op.OperationId = o.id
		for _, q := range o.query {
			op.Parameters = append(op.Parameters, query3(q))
		}
		if o.body != "" {
			op.RequestBody = &spec3.RequestBody{RequestBodyProps: spec3.RequestBodyProps{Content: content3(o.bodies(), o.body), Required: o.method != "delete"}}
		}
		answer := &spec3.Response{ResponseProps: spec3.ResponseProps{Description: "OK"}}
		if o.answer != "" {
			answer.Content = content3(o.answers(), o.answer)
		}
		op.Responses = &spec3.Responses{ResponsesProps: spec3.ResponsesProps{StatusCodeResponses: map[int]*spec3.Response{200: answer}}}
		methods[spec3.Operation]{"get": &out.Get, "put": &out.Put, "post": &out.Post, "patch": &out.Patch, "delete": &out.Delete,
			"head": &out.Head, "options": &out.Options}.set(o.method, op)
	}
	return out
}

// methods is where a path holds the operation of each HTTP method, in either version of OpenAPI.
type methods[O any] map[string]**O

func (m methods[O]) set(method string, op *O) {
	if field := m[method]; field != nil {
		*field = op
	}
}

func kindOf(p apiPath) string { return p.operations[0].gvk.Kind }

func query3(q parameter) *spec3.Parameter {
	return &spec3.Parameter{ParameterProps: spec3.ParameterProps{
		Name: q.name, In: "query", Description: q.about, Schema: &spec.Schema{SchemaProps: spec.SchemaProps{Type: spec.StringOrArray{q.kind}}}}}
}

func content3(types []string, def string) map[string]*spec3.MediaType {
	out := map[string]*spec3.MediaType{}
	for _, t := range types {
		out[t] = &spec3.MediaType{MediaTypeProps: spec3.MediaTypeProps{Schema: spec.RefSchema("#/components/schemas/" + def)}}
	}
	return out
}

func (p apiPath) v2() spec.PathItem {
	var out spec.PathItem
	for _, n := range p.parameters {
		out.Parameters = append(out.Parameters, spec.Parameter{
			ParamProps:   spec.ParamProps{Name: n, In: "path", Required: true, Description: n + " of the " + kindOf(p)},
			SimpleSchema: spec.SimpleSchema{Type: "string"},
		})
	}
	out.Parameters = append(out.Parameters, query2(pretty))
	for _, o := range p.operations {
		op := &spec.Operation{VendorExtensible: o.extensions()}
		op.ID, op.Produces, op.Consumes = o.id, o.answers(), o.answers()
		if o.body != "" {
			op.Consumes = o.bodies()
			op.Parameters = append(op.Parameters, spec.Parameter{ParamProps: spec.ParamProps{
				Name: "body", In: "body", Required: o.method != "delete", Schema: spec.RefSchema("#/definitions/" + o.body)}})
		}
		for _, q := range o.query {
			op.Parameters = append(op.Parameters, query2(q))
		}
		answer := spec.Response{ResponseProps: spec.ResponseProps{Description: "OK"}}
		if o.answer != "" {
			answer.Schema = spec.RefSchema("#/definitions/" + o.answer)
		}
		op.Responses = &spec.Responses{ResponsesProps: spec.ResponsesProps{StatusCodeResponses: map[int]spec.Response{200: answer}}}
		methods[spec.Operation]{"get": &out.Get, "put": &out.Put, "post": &out.Post, "patch": &out.Patch, "delete": &out.Delete,
			"head": &out.Head, "options": &out.Options}.set(o.method, op)
	}
	return out
}

func query2(q parameter) spec.Parameter {
	return spec.Parameter{
		ParamProps:   spec.ParamProps{Name: q.name, In: "query", Description: q.about},
		SimpleSchema: spec.SimpleSchema{Type: q.kind},
	}
}
