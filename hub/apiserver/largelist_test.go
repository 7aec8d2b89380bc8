package apiserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/audit"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
)

// largeList is a registry that has one list, whose last object may be broken.
type largeList struct {
	registry.Verbs
	items []json.RawMessage
}

func (l *largeList) List(context.Context, resource.Target, *metav1.ListOptions) (*registry.ListResult, error) {
	return &registry.ListResult{ResourceVersion: "9", Items: l.items}, nil
}

// TestListsOfAnySize asks for lists in every form, of a size that is answered as a whole and of one that is written while it is made: the
// first has its length, and an object that cannot be decoded is a 500; the second has none, and its connection breaks.
func TestListsOfAnySize(t *testing.T) {
	t.Parallel()
	verbs := &largeList{}
	server := httptest.NewServer(bare(t, apiserver.Config{Verbs: verbs, Authenticator: masters{}}))
	t.Cleanup(server.Close)
	const shape = ";v=v1;g=meta.k8s.io;as="
	for _, size := range []int{10, 6 << 20} {
		for _, accept := range []string{
			"application/vnd.kubernetes.protobuf", "application/cbor", "application/yaml", "application/json" + shape + "Table", "application/yaml" + shape + "Table",
			"application/json" + shape + "PartialObjectMetadataList", "application/vnd.kubernetes.protobuf" + shape + "PartialObjectMetadataList", "application/json",
		} {
			for _, broken := range []bool{false, true} {
				if broken && accept == "application/yaml" {
					continue // what cannot be converted is answered as it is stored
				}
				name := fmt.Sprintf("%d bytes as %s, broken %t", size, accept, broken)
				note := strings.Repeat("x", size/2)
				verbs.items = nil
				for _, n := range []string{"a", "b"} {
					verbs.items = append(verbs.items, json.RawMessage(fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":%q,"annotations":{"n":%q}}}`, n, note)))
				}
				if broken {
					verbs.items = append(verbs.items, json.RawMessage(`{"kind":"ConfigMap","apiVersion":"v1","metadata":7`))
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+configMaps+"?pretty=true", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Accept", accept)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				small, form := size < 100, strings.Split(accept, ";")[0]
				if !small && form == "application/yaml" {
					form = "application/json" // too long for the other
				}
				switch {
				case !broken:
					if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != form || strings.Count(string(body), note) != 2 || (resp.ContentLength < 0) == small {
						t.Errorf("%s: %d %s, %d of %d bytes, %v", name, resp.StatusCode, resp.Header.Get("Content-Type"), len(body), resp.ContentLength, err)
					}
				case small && (err != nil || resp.StatusCode != 500):
					t.Errorf("%s: %d %.200s, %v", name, resp.StatusCode, body, err)
				case !small && err == nil && resp.StatusCode != 500:
					t.Errorf("%s: %d and a whole answer of %d bytes", name, resp.StatusCode, len(body))
				}
			}
		}
	}
}

// TestLongListsInTheAuditLog checks that a list is in the audit log, and that one that is too long for it is noted as such and still answered.
func TestLongListsInTheAuditLog(t *testing.T) {
	t.Parallel()
	l, recorded := auditLog(t, "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: RequestResponse}]\n")
	verbs := &largeList{}
	h := bare(t, apiserver.Config{Verbs: verbs, Authenticator: masters{}, Audit: l})
	for _, size := range []int{10, audit.MaxText} {
		verbs.items = []json.RawMessage{json.RawMessage(fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"k":%q}}`, strings.Repeat("x", size)))}
		for _, accept := range []string{"application/json", "application/vnd.kubernetes.protobuf", "application/json;v=v1;g=meta.k8s.io;as=Table"} {
			r := httptest.NewRequest(http.MethodGet, configMaps+"?includeObject=Object", nil)
			r.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != 200 || w.Body.Len() < size {
				t.Fatalf("%s: %d, %d bytes", accept, w.Code, w.Body.Len())
			}
		}
	}
	n := 0
	for line := range strings.Lines(recorded()) {
		var e auditv1.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		long := n >= 3
		if (e.ResponseObject == nil) != long || (e.Annotations["audit.k8s.io/truncated"] == "true") != long {
			t.Errorf("answer %d: an object of %d bytes, annotations %v", n, len(line), e.Annotations)
		}
		n++
	}
	if n != 6 {
		t.Errorf("%d events", n)
	}
}
