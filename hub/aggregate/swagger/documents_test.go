package swagger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"petrel.dev/petrel/hub/aggregate"
	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/internal/memtest"
)

// ownDocument is that of a hub with Pods.
const ownDocument = `{"swagger":"2.0","info":{"title":"Kubernetes","version":"v1"},"paths":{"/api/v1/pods":{"get":{"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/io.k8s.Pod"}}}}}},
	"definitions":{"io.k8s.Pod":{"type":"object","properties":{"metadata":{"$ref":"#/definitions/io.k8s.Meta"},"status":{"$ref":"#/definitions/io.k8s.Status"}},"x-kubernetes-group-version-kind":[{"group":"","kind":"Pod","version":"v1"}]},
	"io.k8s.Meta":{"type":"object","properties":{"name":{"type":"string"}}},"io.k8s.Status":{"type":"object","properties":{"code":{"type":"integer"}}}}}`

// own is the documents of that hub.
type own struct{ t *testing.T }

func (own) GroupVersions() (map[string]string, error) { return map[string]string{"api/v1": "tag"}, nil }
func (own) V3(schema.GroupVersion, bool) ([]byte, string, bool, error) {
	return []byte("v3"), "tag", true, nil
}
func (o own) V2(protobuf bool) ([]byte, string, error) {
	packed, tag, err := openapi.Pack(json.RawMessage(ownDocument))
	if err == nil && protobuf {
		packed, err = openapi.ProtobufV2(packed)
	}
	return packed, tag, err
}

// answer is what a server says; have is the ETag that it was asked with.
type answer func(ctx context.Context, have string) (doc []byte, etag string, err error)

// servers answer by the group of their APIService.
type servers struct {
	mu      sync.Mutex
	groups  []string          // guarded by mu
	answers map[string]answer // guarded by mu
	asked   map[string]int    // guarded by mu
	away    map[string]bool   // guarded by mu
}

func (s *servers) set(group string, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answers == nil {
		s.answers, s.asked, s.away = map[string]answer{}, map[string]int{}, map[string]bool{}
	}
	if s.answers[group] == nil {
		s.groups = append(s.groups, group)
	}
	s.answers[group] = a
}

func (s *servers) Services() (out []*apiregistrationv1.APIService) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, group := range s.groups {
		svc := &apiregistrationv1.APIService{Spec: apiregistrationv1.APIServiceSpec{Group: group, Version: "v1", Service: &apiregistrationv1.ServiceReference{Namespace: "n", Name: group}}}
		svc.Name = "v1." + group
		available := apiregistrationv1.ConditionTrue
		if s.away[group] {
			available = apiregistrationv1.ConditionFalse
		}
		svc.Status.Conditions = []apiregistrationv1.APIServiceCondition{{Type: apiregistrationv1.Available, Status: available}}
		out = append(out, svc)
	}
	return out
}

func (s *servers) Document(ctx context.Context, svc *apiregistrationv1.APIService, have string) ([]byte, string, error) {
	s.mu.Lock()
	a := s.answers[svc.Spec.Group]
	s.asked[svc.Spec.Group]++
	s.mu.Unlock()
	return a(ctx, have)
}

// thing is the document of a server with one kind in its group; more are further definitions.
func thing(group, more string) string {
	return `{"swagger":"2.0","info":{"title":"x","version":"y"},"paths":{"/apis/` + group + `/v1/things":{"get":{"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/` + group + `.Thing"}}}}},
		"/api/v1/pods":{"get":{"responses":{"200":{"description":"mine"}}}},"/apis/other/v1/x":{}},
		"definitions":{"` + group + `.Thing":{"type":"object","properties":{"metadata":{"$ref":"#/definitions/io.k8s.Meta"}},"x-kubernetes-group-version-kind":[{"group":"` + group + `","kind":"Thing","version":"v1"},{"group":"","kind":"Pod","version":"v1"}]},
		"io.k8s.Meta":{"type":"object","properties":{"name":{"type":"string"}},"x-kubernetes-group-version-kind":[{"group":"apps","kind":"Meta","version":"v1"}]}` + more + `}}`
}

// says answers always the same.
func says(doc string) answer {
	return func(context.Context, string) ([]byte, string, error) { return []byte(doc), "", nil }
}

// read returns the merged document.
func read(t *testing.T, d *Documents) (*spec.Swagger, string) {
	t.Helper()
	packed, tag, err := d.V2(false)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := decode(packed)
	if err != nil {
		t.Fatal(err)
	}
	return doc, tag
}

func has(doc *spec.Swagger, group string) bool {
	_, path := doc.Paths.Paths["/apis/"+group+"/v1/things"]
	_, definition := doc.Definitions[group+".Thing"]
	return path && definition
}

// TestMerged checks what becomes of servers' documents: their own paths, definitions that are shared or renamed, and nothing about the
// kinds of others.
func TestMerged(t *testing.T) {
	s := &servers{}
	d := New(own{t}, s, slog.New(slog.DiscardHandler))
	alone, tag := read(t, d)
	if _, again, _ := d.Own.V2(false); again != tag || len(alone.Paths.Paths) != 1 {
		t.Errorf("without servers: %s, %v", tag, alone.Paths)
	}
	s.set("a.dev", says(thing("a.dev", "")))
	other := `,"io.k8s.Status":{"type":"object","properties":{"reason":{"type":"string"}}}`
	s.set("b.dev", says(strings.Replace(thing("b.dev", other), `{"name":`, `{"status":{"$ref":"#/definitions/io.k8s.Status"},"name":`, 1)))
	doc, tag2 := read(t, d)
	if !has(doc, "a.dev") || !has(doc, "b.dev") || tag2 == tag || len(doc.Paths.Paths) != 3 {
		t.Errorf("%v, %s", doc.Paths.Paths, tag2)
	}
	if got := doc.Paths.Paths["/api/v1/pods"].Get.Responses.StatusCodeResponses[200].Description; got != "OK" {
		t.Errorf("pods are described as %q", got)
	}
	if kinds, _ := json.Marshal(doc.Definitions["a.dev.Thing"].Extensions[kindsOf]); string(kinds) != `[{"group":"a.dev","kind":"Thing","version":"v1"}]` {
		t.Errorf("a Thing is %s", kinds)
	}
	if _, renamed := doc.Definitions["io.k8s.Meta_v2"]; !renamed { // b.dev's has one more field
		t.Errorf("definitions: %v", doc.Definitions)
	}
	if ref := doc.Definitions["a.dev.Thing"].Properties["metadata"].Ref; ref.String() != "#/definitions/io.k8s.Meta" {
		t.Errorf("what is the same is not shared: %s", ref.String())
	}
	meta := doc.Definitions["io.k8s.Meta_v2"].Properties["status"].Ref
	if ref := doc.Definitions["b.dev.Thing"].Properties["metadata"].Ref; ref.String() != "#/definitions/io.k8s.Meta_v2" || meta.String() != "#/definitions/io.k8s.Status_v2" {
		t.Errorf("%s, %s", ref.String(), meta.String())
	}
	if doc.Definitions["io.k8s.Status"].Properties["code"].Type == nil || doc.Definitions["io.k8s.Meta"].Extensions[kindsOf] != nil {
		t.Error("the hub's own definitions have changed")
	}
	packed, tag3, err := d.V2(true)
	if err != nil || tag3 != tag2 {
		t.Fatal(tag3, err)
	}
	raw, err := openapi.Unpack(packed)
	if err != nil {
		t.Fatal(err)
	}
	var message openapiv2.Document
	if err := proto.Unmarshal(raw, &message); err != nil || len(message.Definitions.AdditionalProperties) != len(doc.Definitions) {
		t.Errorf("as protobuf: %v", err)
	}
	if v3, _, _, _ := d.V3(schema.GroupVersion{}, false); string(v3) != "v3" {
		t.Error("version 3 is not the hub's own")
	}
}

// TestBadServers checks that the document of a good server is there whatever another one answers, in bounded time and memory, and in both
// forms.
func TestBadServers(t *testing.T) {
	for name, doc := range map[string]string{
		"nonsense":      "<html>",
		"nothing":       "",
		"null":          "null",
		"a list":        "[]",
		"no paths":      `{"swagger":"2.0"}`,
		"deep":          thing("bad.dev", `,"deep":`+strings.Repeat(`{"items":`, 100_000)+"{}"+strings.Repeat("}", 100_000)),
		"quite deep":    thing("bad.dev", `,"deep":`+strings.Repeat(`{"items":`, 900)+"{}"+strings.Repeat("}", 900)),
		"much":          thing("bad.dev", `,"x":{"enum":[`+strings.Repeat("{},", 1_000_000)+"{}]}"),
		"many":          thing("bad.dev", strings.Repeat(`,"x":{}`, 500_000)),
		"many kinds":    thing("bad.dev", `,"y":{"x-kubernetes-group-version-kind":[`+strings.Repeat(`{"group":"bad.dev"},`, 1000)+`7]}`),
		"wrong types":   strings.Replace(thing("bad.dev", ""), `"type":"object"`, `"type":7`, 1),
		"no kinds":      strings.Replace(thing("bad.dev", ""), `[{"group":"bad.dev"`, `{"a":[{"group":"bad.dev"`, 1),
		"unknown form":  strings.Replace(thing("bad.dev", ""), `"responses":{"200"`, `"respond":{"200"`, 1),
		"odd name":      thing("bad.dev", `,"%zz":{"type":"object","properties":{"a":{"$ref":"#/definitions/%zz"}}}`),
		"odd reference": strings.Replace(thing("bad.dev", ""), "#/definitions/io.k8s.Meta", "://%zz", 1),
		"to itself":     strings.Replace(thing("bad.dev", ""), "#/definitions/io.k8s.Meta", "#/definitions/bad.dev.Thing", 1),
		"long names":    thing("bad.dev", `,"`+strings.Repeat("x", 3<<20)+`":{}`),
	} {
		t.Run(name, func(t *testing.T) {
			s := &servers{}
			s.set("bad.dev", says(doc))
			s.set("good.dev", says(thing("good.dev", `,"%zz":{"type":"string"}`)))
			d := New(own{t}, s, slog.New(slog.DiscardHandler))
			var merged *spec.Swagger
			var err error
			n := memtest.Allocated(func() {
				merged, _ = read(t, d)
				_, _, err = d.V2(true)
			})
			if !has(merged, "good.dev") || err != nil {
				t.Errorf("the other server's: %v, %v", merged.Paths, err)
			}
			if n > 128 {
				t.Errorf("%d MiB were allocated", n)
			}
		})
	}
}

// TestAllTogether checks that servers whose documents take too much together do not hurt the more important ones.
func TestAllTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // their time does not count
		s := &servers{}
		for i := range 5 {
			group := fmt.Sprintf("g%d.dev", i)
			var more strings.Builder
			for n := range 10_000 {
				fmt.Fprintf(&more, `,"%s.d%d":{}`, group, n)
			}
			s.set(group, says(thing(group, more.String())))
		}
		d := New(own{t}, s, slog.New(slog.DiscardHandler))
		doc, _ := read(t, d)
		if !has(doc, "g0.dev") || has(doc, "g4.dev") || len(doc.Definitions) > 41_000 {
			t.Errorf("%d definitions, of the first: %v, of the last: %v", len(doc.Definitions), has(doc, "g0.dev"), has(doc, "g4.dev"))
		}
	})
}

// TestSlowServer checks that one reader waits a moment for a server that hangs, others do not, and that its document is there once it has
// answered; what it has said before stays while it is away, and goes with its APIService.
func TestSlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &servers{}
		s.set("good.dev", says(thing("good.dev", "")))
		s.set("slow.dev", func(ctx context.Context, _ string) ([]byte, string, error) { <-ctx.Done(); return nil, "", ctx.Err() })
		d := New(own{t}, s, slog.New(slog.DiscardHandler))
		waits := func(what string, want time.Duration, slow bool) {
			t.Helper()
			began := time.Now()
			doc, _ := read(t, d)
			if took := time.Since(began); took != want || !has(doc, "good.dev") || has(doc, "slow.dev") != slow {
				t.Errorf("%s: after %v, %v", what, took, doc.Paths)
			}
		}
		waits("the first", patience, false)
		waits("the second", 0, false)
		time.Sleep(askTime + retryAfter)
		waits("again, when it may be asked again", 0, false)
		synctest.Wait() // it has been asked
		s.set("slow.dev", func(context.Context, string) ([]byte, string, error) {
			time.Sleep(patience / 2)
			return []byte(thing("slow.dev", "")), "", nil
		})
		time.Sleep(askTime + retryAfter)
		waits("while it answers", 0, false)
		time.Sleep(patience)
		waits("when it has answered", 0, true)
		time.Sleep(freshFor)
		waits("when it is quick again", patience/2, true)
		s.away["slow.dev"] = true
		time.Sleep(freshFor)
		waits("while it is away", 0, true)
		if n := s.asked["slow.dev"]; n != 4 {
			t.Errorf("asked %d times", n)
		}
		s.groups = s.groups[:1]
		waits("when it is gone", 0, false)
	})
}

// TestAskedSeldom checks that readers do not make the hub ask for each, that a document is not sent again when it is the same, and that
// an error leaves it.
func TestAskedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &servers{}
		var had []string
		next := func(doc []byte, etag string, err error) {
			s.set("a.dev", func(_ context.Context, have string) ([]byte, string, error) {
				had = append(had, have)
				return doc, etag, err
			})
		}
		d := New(own{t}, s, slog.New(slog.DiscardHandler))
		next([]byte(thing("a.dev", "")), "e1", nil)
		_, first := read(t, d)
		for range 10 {
			if _, tag := read(t, d); tag != first {
				t.Error("another tag")
			}
		}
		for _, step := range []struct {
			doc  string
			err  error
			same bool // the document is as before
			has  bool
		}{{"", nil, true, true}, {"", errors.New("no"), true, true}, {thing("a.dev", `,"more":{"type":"string"}`), nil, false, true}, {"", aggregate.ErrNoDocument, false, false}} {
			time.Sleep(freshFor)
			doc := []byte(step.doc)
			if step.doc == "" {
				doc = nil
			}
			next(doc, "e2", step.err)
			got, tag := read(t, d)
			if (tag == first) != step.same || has(got, "a.dev") != step.has {
				t.Errorf("%+v: %s", step, tag)
			}
			first = tag
		}
		if want := "[ e1 e1 e1 e2]"; fmt.Sprint(had) != want {
			t.Errorf("asked with %q", had)
		}
	})
}
