package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"petrel.dev/petrel/internal/cli/nearest"
)

// target is one resource type, with a name or without.
type target struct {
	mapping *meta.RESTMapping
	name    string // empty: all of the type
}

// targets parses arguments as kubectl does: TYPE, TYPE,TYPE, TYPE NAME..., TYPE/NAME..., and categories such as all.
func (c *conn) targets(args []string) ([]target, error) {
	if len(args) == 0 {
		return nil, errors.New("name what you mean: a resource type such as `pods`, or TYPE/NAME; `petrel api-resources` lists the types")
	}
	var out []target
	if strings.Contains(args[0], "/") {
		for _, a := range args {
			typ, name, ok := strings.Cut(a, "/")
			if !ok || typ == "" || name == "" {
				return nil, fmt.Errorf("%q is not TYPE/NAME, and cannot be mixed with it", a)
			}
			ms, err := c.mappings(typ)
			if err != nil {
				return nil, err
			}
			out = append(out, target{ms[0], name})
		}
		return out, nil
	}
	ms, err := c.mappings(args[0])
	if err != nil {
		return nil, err
	}
	if len(args) == 1 {
		for _, m := range ms {
			out = append(out, target{mapping: m})
		}
		return out, nil
	}
	for _, m := range ms {
		for _, name := range args[1:] {
			if strings.Contains(name, "/") {
				return nil, fmt.Errorf("%q: a name must not contain a slash here; write either TYPE NAME or TYPE/NAME", name)
			}
			out = append(out, target{m, name})
		}
	}
	return out, nil
}

// one does what targets does, for commands that take exactly one named object.
func (c *conn) one(args []string) (target, error) {
	ts, err := c.targets(args)
	if err != nil {
		return target{}, err
	}
	if len(ts) != 1 || ts[0].name == "" {
		return target{}, fmt.Errorf("%q does not name exactly one object; write TYPE/NAME", strings.Join(args, " "))
	}
	return ts[0], nil
}

// mappings resolves a comma-separated list of types; a category stands for its members.
func (c *conn) mappings(list string) ([]*meta.RESTMapping, error) {
	var out []*meta.RESTMapping
	categories := restmapper.NewDiscoveryCategoryExpander(c.discovery)
	for typ := range strings.SplitSeq(list, ",") {
		if members, ok := categories.Expand(typ); ok {
			for _, gr := range members {
				m, err := c.mapping(gr.WithVersion(""))
				if err != nil {
					return nil, err
				}
				out = append(out, m)
			}
			continue
		}
		gvr, gr := schema.ParseResourceArg(strings.ToLower(typ))
		if gvr == nil {
			v := gr.WithVersion("")
			gvr = &v
		}
		m, err := c.mapping(*gvr)
		if err != nil {
			m2, err2 := c.mapping(gr.WithVersion("")) // "deployments.apps": the first dot was no version
			if err2 != nil {
				if meta.IsNoMatchError(err) {
					return nil, c.noSuchType(typ)
				}
				return nil, err
			}
			m = m2
		}
		out = append(out, m)
	}
	return out, nil
}

func (c *conn) noSuchType(typ string) error {
	lists, _ := c.discovery.ServerPreferredResources() // the mapper's own answer; without it there is no suggestion
	return fmt.Errorf("the server doesn't have a resource type %q; `petrel api-resources` lists those it has%s", typ, nearest.Kinds(typ, lists))
}

func (c *conn) mapping(gvr schema.GroupVersionResource) (*meta.RESTMapping, error) {
	gvk, err := c.mapper.KindFor(gvr)
	if err != nil {
		return nil, err
	}
	return c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
}

// namespaced reports whether the type lives in namespaces.
func namespaced(m *meta.RESTMapping) bool { return m.Scope.Name() == meta.RESTScopeNameNamespace }

// resource returns the dynamic client for a type, in a namespace unless the type has none.
func (c *conn) resource(m *meta.RESTMapping, namespace string) dynamic.ResourceInterface {
	if namespaced(m) {
		return c.dynamic.Resource(m.Resource).Namespace(namespace)
	}
	return c.dynamic.Resource(m.Resource)
}

// get returns the object of a target that has a name.
func (c *conn) get(ctx context.Context, t target, ns string) (*unstructured.Unstructured, error) {
	o, err := c.resource(t.mapping, ns).Get(ctx, t.name, metav1.GetOptions{})
	return o, c.missing(ctx, t, ns, err)
}

// missing adds the nearest names to the error of an object that does not exist.
func (c *conn) missing(ctx context.Context, t target, ns string, err error) error {
	if t.name == "" || !isNotFound(err) {
		return err
	}
	return &nearest.Error{Err: err, Hint: func() string {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second) // the command's own time may be over
		defer cancel()
		return nearest.Hint(t.name, c.names(ctx, t.mapping, ns))
	}}
}

// names returns the names of a type's first objects, as far as the server gives them.
func (c *conn) names(ctx context.Context, m *meta.RESTMapping, ns string) (names []string) {
	body, err := c.raw(ctx, path(m, ns, ""), url.Values{"limit": {"1000"}}, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json")
	if err != nil {
		return nil
	}
	defer body.Close()
	var list metav1.PartialObjectMetadataList
	_ = json.NewDecoder(body).Decode(&list) // what came until then will do
	for _, o := range list.Items {
		names = append(names, o.Name)
	}
	return names
}

// path returns the REST path of a type, or of one object of it.
func path(m *meta.RESTMapping, namespace, name string) string {
	p := "/apis/" + m.Resource.Group + "/" + m.Resource.Version
	if m.Resource.Group == "" {
		p = "/api/" + m.Resource.Version
	}
	if namespaced(m) && namespace != "" {
		p += "/namespaces/" + namespace
	}
	p += "/" + m.Resource.Resource
	if name != "" {
		p += "/" + name
	}
	return p
}

// display returns the name of an object in output: "deployment.apps/web".
func display(m *meta.RESTMapping, name string) string {
	kind := strings.ToLower(m.GroupVersionKind.Kind)
	if g := m.GroupVersionKind.Group; g != "" {
		kind += "." + g
	}
	return kind + "/" + name
}

// choice selects the objects of a verb: by their names, by a selector, or all of a type.
type choice struct {
	args          []string
	selector      string
	all           bool
	allNamespaces bool
	namespace     string
}

// found is an object and its type.
type found struct {
	object  *unstructured.Unstructured
	mapping *meta.RESTMapping
}

// checkNames refuses what contradicts names: a selector that would be ignored, and every namespace at once.
func checkNames(ts []target, selector string, all, allNamespaces bool) error {
	for _, t := range ts {
		switch {
		case t.name == "":
		case selector != "":
			return fmt.Errorf("%s is named, so the selector %q would be ignored: give a name or a selector", display(t.mapping, t.name), selector)
		case all:
			return fmt.Errorf("%s is named, and --all means all of them: give one of the two", display(t.mapping, t.name))
		case allNamespaces && namespaced(t.mapping):
			return fmt.Errorf("%s is named, and a name means an object of one namespace: use -n NAMESPACE instead of --all-namespaces", display(t.mapping, t.name))
		}
	}
	return nil
}

// selected returns the objects of a choice. Names that do not exist are errors in missing, so that each verb decides
// what becomes of the others; err is for all else.
func (c *conn) selected(ctx context.Context, ch choice) (objs []found, missing []error, err error) {
	ts, err := c.targets(ch.args)
	if err != nil {
		return nil, nil, err
	}
	if err := checkNames(ts, ch.selector, ch.all, ch.allNamespaces); err != nil {
		return nil, nil, err
	}
	ns := ch.namespace
	if ch.allNamespaces {
		ns = ""
	}
	for _, t := range ts {
		if t.name != "" {
			o, err := c.get(ctx, t, ns)
			if isNotFound(err) {
				missing = append(missing, err)
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			objs = append(objs, found{o, t.mapping})
			continue
		}
		if ch.selector == "" && !ch.all {
			return nil, nil, fmt.Errorf("%s without a name means nothing by itself: give a name, a selector (-l) or --all", t.mapping.Resource.Resource)
		}
		list, err := c.resource(t.mapping, ns).List(ctx, metav1.ListOptions{LabelSelector: ch.selector})
		if err != nil {
			return nil, nil, err
		}
		for i := range list.Items {
			objs = append(objs, found{&list.Items[i], t.mapping})
		}
	}
	return objs, missing, nil
}
