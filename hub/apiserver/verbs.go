package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/warning"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/weight"
)

// short serves the verbs that read or write once and answer at once.
func (x *exchange) short() {
	out, err := x.negotiate()
	if err != nil {
		x.fail(err)
		return
	}
	var body []byte // read first: the time that it takes to arrive is not the work's
	if x.verb != "get" {
		if body, err = x.readBody(); err != nil {
			x.fail(err)
			return
		}
	}
	ctx, cancel := context.WithTimeout(x.ctx, requestTimeout)
	defer cancel()
	x.ctx = warning.WithWarningRecorder(ctx, x)
	var res *registry.Result
	switch x.verb {
	case "get":
		res, err = x.get()
	case "create":
		res, err = x.create(body)
	case "update":
		res, err = x.update(body)
	case "patch":
		res, err = x.patch(body)
	case "delete":
		res, err = x.delete(body)
	case "deletecollection":
		x.deleteCollection(out, body)
		return
	default:
		err = fmt.Errorf("verb %q is declared by %s but not served", x.verb, x.t.Kind.Plural)
	}
	x.unweigh() // the answer may be read slowly
	if err != nil {
		x.fail(err)
		return
	}
	for _, w := range res.Warnings {
		x.warn(w)
	}
	code := http.StatusOK
	if res.Created {
		code = http.StatusCreated
	} else if res.Accepted {
		code = http.StatusAccepted
	}
	x.writeResult(code, out, res)
}

func (x *exchange) get() (*registry.Result, error) {
	o := &metav1.GetOptions{}
	if err := x.decodeQuery(o); err != nil {
		return nil, err
	}
	return x.s.Verbs.Get(x.ctx, x.t, o)
}

func (x *exchange) create(body []byte) (*registry.Result, error) {
	o, err := x.createOptions()
	if err != nil {
		return nil, err
	}
	obj, err := x.decodeTarget(body, o.FieldValidation)
	if err != nil {
		return nil, err
	}
	return x.s.Verbs.Create(x.ctx, x.t, obj, o)
}

func (x *exchange) update(body []byte) (*registry.Result, error) {
	o, err := x.updateOptions()
	if err != nil {
		return nil, err
	}
	obj, err := x.decodeTarget(body, o.FieldValidation)
	if err != nil {
		return nil, err
	}
	return x.s.Verbs.Update(x.mayCreate(), x.t, obj, o)
}

// decodeTarget decodes a body for the target, and fills the URL's namespace into it.
func (x *exchange) decodeTarget(body []byte, validation string) (runtime.Object, error) {
	obj, err := x.decodeBody(body, bodyOf(x.t.Kind, x.sub), validation)
	if err != nil {
		return nil, err
	}
	x.audit.Object(obj)
	m, err := meta.Accessor(obj)
	if err != nil {
		return obj, nil // a body without metadata
	}
	return obj, registry.FitNamespace(x.t.Kind, x.t.Namespace, m)
}

func (x *exchange) patch(body []byte) (*registry.Result, error) {
	contentType, _, _ := strings.Cut(x.r.Header.Get("Content-Type"), ";")
	pt := types.PatchType(strings.TrimSpace(contentType))
	if accepted := x.t.Kind.PatchTypes(); !slices.Contains(accepted, pt) {
		return nil, media.Unsupported(accepted)
	}
	o, err := x.patchOptions(pt)
	if err != nil {
		return nil, err
	}
	form, isYAML := media.JSON, pt == types.ApplyPatchType && !json.Valid(body)
	if pt == types.ApplyCBORPatchType {
		form = media.CBOR
	}
	if !isYAML {
		if err := x.weigh(form, body, weight.Untyped()); err != nil {
			return nil, err
		}
	}
	x.audit.Patch(body)
	if isYAML { // JSON is YAML too, and most clients send that
		release, err := x.yamlTurn(len(body))
		if err != nil {
			return nil, err
		}
		defer release()
	}
	return x.s.Verbs.Patch(x.mayCreate(), x.t, pt, body, o)
}

// mayCreate returns the request's context with the check that a PUT or an apply needs before it creates what does not exist: the user
// was allowed to update or to patch it.
func (x *exchange) mayCreate() context.Context {
	return registry.WithCreateCheck(x.ctx, func(ctx context.Context) error {
		a := x.attributes()
		a.Verb = "create"
		_, err := x.s.authorize(ctx, auth.UserFrom(ctx), a) // who may be impersonated
		return err
	})
}

func (x *exchange) delete(body []byte) (*registry.Result, error) {
	o, err := x.deleteOptions(body)
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		x.audit.Object(o)
	}
	x.warnOfOrphans(o)
	return x.s.Verbs.Delete(x.ctx, x.t, o)
}

func (x *exchange) deleteCollection(out media.Form, body []byte) {
	// Deleting many takes its time, as a list does: only the client's patience bounds it.
	x.ctx = warning.WithWarningRecorder(x.r.Context(), x)
	list, err := x.listOptions()
	if err != nil {
		x.fail(err)
		return
	}
	// The query holds list options here, so delete options come from a body only.
	o := &metav1.DeleteOptions{}
	if len(body) > 0 {
		if o, err = x.deleteOptions(body); err != nil {
			x.fail(err)
			return
		}
	} else if err := x.decodeQuery(o); err != nil {
		x.fail(err)
		return
	}
	x.warnOfOrphans(o)
	res, err := x.s.Verbs.DeleteCollection(x.ctx, x.t, o, list)
	if err != nil {
		x.fail(err)
		return
	}
	if !x.stored(out) {
		done, err := x.s.budgets.lists.Enter(x.ctx, x.user.Name, res)
		if err != nil {
			x.fail(err)
			return
		}
		defer done()
	}
	x.writeList(out, res)
}

// warnOfOrphans warns of a deletion that leaves dependents because it does not say what becomes of them.
func (x *exchange) warnOfOrphans(o *metav1.DeleteOptions) {
	//lint:ignore SA1019 deprecated, and still honoured
	if text := x.t.Kind.OrphanWarning; text != "" && o.PropagationPolicy == nil && o.OrphanDependents == nil {
		x.warn(text)
	}
}

// negotiate returns the form in which the client wants the answer.
func (x *exchange) negotiate() (media.Form, error) {
	accepted := media.All
	if x.sub == nil || x.sub.New == nil { // otherwise the answer is of another kind than the target
		accepted = media.Of(x.t.Kind)
	}
	shapes := x.t.Kind == nil || x.t.Kind.Handler == nil // reviews are answers to questions, and have no metadata
	return media.Negotiate(x.r, x.query, accepted, x.verb == "watch", shapes)
}

// writeResult answers with one object.
func (x *exchange) writeResult(code int, out media.Form, res *registry.Result) {
	body := res.JSON
	if out.As != "" && !isStatus(body) {
		var err error
		if body, err = x.transform(out, res); err != nil {
			x.fail(err)
			return
		}
		res = &registry.Result{JSON: body}
	}
	if out.Binary() {
		x.writeBinary(code, out, res.Object, body)
		return
	}
	x.writeBody(code, out, body)
}

// isStatus reports whether a deletion was answered with a Status, which has no other shape.
func isStatus(body []byte) bool {
	var t metav1.TypeMeta
	return len(body) < 4096 && json.Unmarshal(body, &t) == nil && t.Kind == "Status" && t.APIVersion == "v1"
}

// manager is the field manager to record: what the client names, otherwise the program's name from its user agent.
func (x *exchange) manager(requested string) string {
	if requested != "" {
		return requested
	}
	const maxLength = 128
	name, _, _ := strings.Cut(x.r.UserAgent(), "/")
	var b strings.Builder
	for _, r := range name {
		if !unicode.IsPrint(r) {
			continue
		}
		if b.Len()+utf8.RuneLen(r) > maxLength {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
