package media

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/munnerz/goautoneg"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/resource"
)

// The media types of bodies and answers.
const (
	JSON     = "application/json"
	YAML     = "application/yaml"
	Protobuf = "application/vnd.kubernetes.protobuf"
	CBOR     = "application/cbor"
)

// All are the media types of a kind that has a Go type. Shared: read-only.
var All = []string{JSON, YAML, Protobuf, CBOR}

var untyped = []string{JSON, YAML, CBOR}

// Of returns the media types of a kind's objects: protobuf needs a Go type. Shared: read-only.
func Of(k *resource.Kind) []string {
	if k != nil && k.Unstructured() {
		return untyped
	}
	return All
}

// Form is the form in which a client wants its answer.
type Form struct {
	Media  string // one of All
	As     string // "", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"
	Shape  string // the apiVersion of As; "" without one. v1beta1 and v1 have the same fields, and old clients know only the first
	Pretty bool
	Table  metav1.TableOptions
}

// transforms are the shapes in which a client may request objects: a list cannot be one PartialObjectMetadata, though
// upstream answers with a list of them, and so do we.
var transforms = map[string]bool{"Table": true, "PartialObjectMetadata": true, "PartialObjectMetadataList": true}

// Negotiate returns the best form of an answer that both sides support; accepted are the media types of what is asked for. At equal
// quality JSON wins over the binary forms, because the store holds JSON: nothing has to be decoded.
// What has no shapes is neither a Table nor metadata.
func Negotiate(r *http.Request, query url.Values, accepted []string, watch, shapes bool) (Form, error) {
	out := Form{Pretty: WantsPretty(r, query.Get("pretty"))}
	accept := r.Header.Get("Accept")
	if accept == "" {
		out.Media = JSON
		return out, nil
	}
	best, bestQ := -1, 0.0
	clauses := goautoneg.ParseAccept(accept)
	for i, c := range clauses {
		o, ok := readClause(c)
		switch {
		case !ok || c.Q <= 0, o.As != "" && !shapes:
			continue
		case watch && o.Media == YAML: // events of YAML have no end that a reader could see
			continue
		case o.As == "" && !slices.Contains(accepted, o.Media): // metadata alone has every form
			continue
		}
		// ParseAccept sorts by quality. Among equals the first wins, except that JSON wins over a binary form in the same shape.
		if best < 0 || c.Q == bestQ && out.Binary() && o.Media == JSON && o.As == out.As {
			best, bestQ = i, c.Q
			o.Pretty = o.Pretty || out.Pretty
			out = o
		}
	}
	if best < 0 {
		for _, c := range clauses {
			if as := c.Params["as"]; transforms[as] {
				return out, NotAcceptable(as + "." + c.Params["v"] + "." + c.Params["g"])
			}
		}
		return out, NotAcceptable("", accepted...)
	}
	if out.As == "Table" {
		var err error
		if out.Table.IncludeObject, err = includeObject(query.Get("includeObject")); err != nil {
			return out, err
		}
	}
	return out, nil
}

// Binary reports whether the form is made from decoded objects.
func (f Form) Binary() bool { return f.Media == Protobuf || f.Media == CBOR }

// ContentType returns the value of the answer's header; watch events have another one than single objects.
func (f Form) ContentType(watch bool) string {
	t := f.Media
	switch {
	case watch && t == Protobuf:
		t += ";stream=watch"
	case watch && t == CBOR:
		t += "-seq"
	}
	if watch && f.As != "" {
		_, version, _ := strings.Cut(f.Shape, "/")
		t += ";as=" + f.As + ";g=" + metav1.GroupName + ";v=" + version
	}
	return t
}

// readClause returns the form that one clause of an Accept header names; ok is false when it is not served.
func readClause(c goautoneg.Accept) (Form, bool) {
	var o Form
	switch {
	case c.Type == "*" && c.SubType == "*", c.Type == "application" && (c.SubType == "*" || c.SubType == "json"):
		o.Media = JSON
	case c.Type == "application" && c.SubType == "yaml":
		o.Media = YAML
	case c.Type == "application" && c.SubType == "vnd.kubernetes.protobuf":
		o.Media = Protobuf
	case c.Type == "application" && (c.SubType == "cbor" || c.SubType == "cbor-seq"):
		o.Media = CBOR
	default:
		return o, false
	}
	o.Pretty = c.Params["pretty"] == "1"
	if s := c.Params["stream"]; s != "" && s != "watch" {
		return o, false
	}
	as, g, v := c.Params["as"], c.Params["g"], c.Params["v"]
	if as == "" && g == "" && v == "" {
		return o, true
	}
	if g != metav1.GroupName || v != "v1" && v != "v1beta1" || !transforms[as] {
		return o, false
	}
	if as == "Table" && o.Binary() { // upstream has Table in text only
		return o, false
	}
	o.As, o.Shape = as, g+"/"+v
	return o, true
}

// includeObject returns what a table's rows have of their objects: their metadata unless the client asks otherwise.
func includeObject(s string) (metav1.IncludeObjectPolicy, error) {
	switch p := metav1.IncludeObjectPolicy(s); p {
	case "":
		return metav1.IncludeMetadata, nil
	case metav1.IncludeNone, metav1.IncludeMetadata, metav1.IncludeObject:
		return p, nil
	}
	return "", apierrors.NewBadRequest(`unrecognized includeObject value: "` + s + `"`)
}

// WantsPretty reports whether the query asks for indented JSON, or the client is curl, wget or a browser.
func WantsPretty(r *http.Request, q string) bool {
	if q != "" {
		b, err := strconv.ParseBool(q)
		return err == nil && b
	}
	ua := r.UserAgent()
	return strings.HasPrefix(ua, "curl") || strings.HasPrefix(ua, "Wget") || strings.HasPrefix(ua, "Mozilla/5.0")
}

// NegotiateError returns the form of an error, whose shape no client chooses. It never fails: a client that accepts nothing suitable gets JSON.
func NegotiateError(r *http.Request) Form {
	out, err := Negotiate(r, nil, All, false, false)
	if err != nil {
		out.Media = JSON
	}
	return out
}
