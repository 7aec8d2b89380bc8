package apiserver

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/munnerz/goautoneg"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/resource"
)

const (
	mediaJSON     = "application/json"
	mediaYAML     = "application/yaml"
	mediaProtobuf = "application/vnd.kubernetes.protobuf"
)

var mediaTypes = []string{mediaJSON, mediaYAML, mediaProtobuf}

// mediaOf returns the media types of a kind's objects: protobuf needs a Go type.
func mediaOf(k *resource.Kind) []string {
	if k != nil && k.Unstructured() {
		return mediaTypes[:2]
	}
	return mediaTypes
}

// output is the form in which a client wants its answer.
type output struct {
	media  string // one of mediaTypes
	as     string // "", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"
	pretty bool
	table  metav1.TableOptions
}

// transforms are the shapes in which a client may request objects: a list cannot be one PartialObjectMetadata, though
// upstream answers with a list of them, and so do we.
var transforms = map[string]bool{"Table": true, "PartialObjectMetadata": true, "PartialObjectMetadataList": true}

// negotiate returns the best form that both sides support. At equal quality JSON wins over protobuf, because the store holds JSON:
// nothing has to be decoded.
func (x *exchange) negotiate() (output, error) {
	out := output{pretty: wantsPretty(x.r, x.query.Get("pretty"))}
	accept := x.r.Header.Get("Accept")
	if accept == "" {
		out.media = mediaJSON
		return out, nil
	}
	best, bestQ := -1, 0.0
	media := mediaTypes
	if x.sub == nil || x.sub.New == nil { // otherwise the answer is of another kind than the target
		media = mediaOf(x.t.Kind)
	}
	clauses := goautoneg.ParseAccept(accept)
	for i, c := range clauses {
		o, ok := readClause(c)
		switch {
		case !ok || c.Q <= 0:
			continue
		case x.verb == "watch" && o.media != mediaJSON: // events are framed as JSON only
			continue
		case o.as == "" && !slices.Contains(media, o.media): // metadata alone has every form
			continue
		}
		// ParseAccept sorts by quality. Among equals the first wins, except that JSON wins over protobuf in the same shape.
		if best < 0 || c.Q == bestQ && out.media == mediaProtobuf && o.media == mediaJSON && o.as == out.as {
			best, bestQ = i, c.Q
			o.pretty = o.pretty || out.pretty
			out = o
		}
	}
	if best < 0 {
		for _, c := range clauses {
			if as := c.Params["as"]; transforms[as] {
				return out, notAcceptable(as + "." + c.Params["v"] + "." + c.Params["g"])
			}
		}
		return out, notAcceptable("", media...)
	}
	if out.as == "Table" {
		var err error
		if out.table.IncludeObject, err = includeObject(x.query.Get("includeObject")); err != nil {
			return out, err
		}
	}
	return out, nil
}

// readClause returns the form that one clause of an Accept header names; ok is false when it is not served.
func readClause(c goautoneg.Accept) (output, bool) {
	var o output
	switch {
	case c.Type == "*" && c.SubType == "*", c.Type == "application" && (c.SubType == "*" || c.SubType == "json"):
		o.media = mediaJSON
	case c.Type == "application" && c.SubType == "yaml":
		o.media = mediaYAML
	case c.Type == "application" && c.SubType == "vnd.kubernetes.protobuf":
		o.media = mediaProtobuf
	default:
		return o, false
	}
	o.pretty = c.Params["pretty"] == "1"
	if s := c.Params["stream"]; s != "" && s != "watch" {
		return o, false
	}
	as, g, v := c.Params["as"], c.Params["g"], c.Params["v"]
	if as == "" && g == "" && v == "" {
		return o, true
	}
	if g != metav1.GroupName || v != "v1" || !transforms[as] {
		return o, false
	}
	if as == "Table" && o.media == mediaProtobuf {
		return o, false
	}
	o.as = as
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

// wantsPretty reports whether the query asks for indented JSON, or the client is curl, wget or a browser.
func wantsPretty(r *http.Request, q string) bool {
	if q != "" {
		b, err := strconv.ParseBool(q)
		return err == nil && b
	}
	ua := r.UserAgent()
	return strings.HasPrefix(ua, "curl") || strings.HasPrefix(ua, "Wget") || strings.HasPrefix(ua, "Mozilla/5.0")
}

// negotiateError returns the form of an error. It never fails: a client that accepts nothing suitable gets JSON.
func negotiateError(r *http.Request) output {
	o := output{media: mediaJSON, pretty: wantsPretty(r, "")}
	if a := r.Header.Get("Accept"); strings.HasPrefix(a, mediaYAML) {
		o.media = mediaYAML
	}
	return o
}
