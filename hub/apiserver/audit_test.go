package apiserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/warning"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/audit"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
)

// auditLog opens an audit log with a policy. recorded ends it, and returns its lines.
func auditLog(t *testing.T, policy string) (l *audit.Log, recorded func() string) {
	t.Helper()
	dir := t.TempDir()
	cfg := audit.Config{PolicyFile: filepath.Join(dir, "policy.yaml"), Path: filepath.Join(dir, "audit.log")}
	if err := os.WriteFile(cfg.PolicyFile, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l, func() string {
		t.Helper()
		ended, end := context.WithCancel(t.Context())
		end()
		if err := l.Run(ended); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(cfg.Path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

// TestAudit checks that requests of every shape are recorded with what they were about and how they ended.
func TestAudit(t *testing.T) {
	policy := "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n" +
		"- {level: None, resources: [{resources: [namespaces]}]}\n- {level: None, nonResourceURLs: [/readyz]}\n- {level: RequestResponse}\n"
	l, recorded := auditLog(t, policy)
	h := newHub(t, func(c *apiserver.Config) { c.Audit = l })
	h.do("GET", "/readyz", "")
	h.do("POST", configMaps, configMap("a", ""))
	h.do("POST", configMaps, configMap("a", ""))
	h.do("PATCH", configMaps+"/a", `{"data":{"x":"y"}}`, "Content-Type: application/merge-patch+json")
	h.do("GET", configMaps, "", "Accept: application/vnd.kubernetes.protobuf")
	h.do("GET", "/api/v1/namespaces/default/configmaps/none", "", "Authorization: Bearer nonsense")
	ctx, stop := context.WithCancel(t.Context())
	w, err := h.client().CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	<-w.ResultChan()
	w.Stop()
	stop()
	h.do("DELETE", configMaps+"/a", `{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}`)
	h.stop()
	var got []string
	for line := range strings.Lines(recorded()) {
		var e auditv1.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		bodies := ""
		if e.RequestObject != nil {
			bodies += " sent"
		}
		if e.ResponseObject != nil {
			bodies += " answered"
		}
		name := ""
		if e.ObjectRef != nil {
			name = e.ObjectRef.Resource + "/" + e.ObjectRef.Name
		}
		got = append(got, fmt.Sprintf("%s %s %s %s %d %s%s", e.Stage, e.User.Username, e.Verb, name, e.ResponseStatus.Code, e.Annotations["authorization.k8s.io/decision"], bodies))
	}
	want := []string{
		"ResponseComplete petrel-admin create configmaps/a 201 allow sent answered",
		"ResponseComplete petrel-admin create configmaps/a 409 allow sent answered",
		"ResponseComplete petrel-admin patch configmaps/a 200 allow sent answered",
		"ResponseComplete petrel-admin list configmaps/ 200 allow answered",
		"ResponseStarted  get configmaps/none 401 ",
		"ResponseStarted petrel-admin watch configmaps/ 200 allow",
		"ResponseComplete petrel-admin watch configmaps/ 200 allow",
		"ResponseComplete petrel-admin delete configmaps/a 200 allow sent answered",
	}
	slices.Sort(got) // the watch ends some time after its client has gone
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("recorded are\n%s", strings.Join(got, "\n"))
	}
}

// TestDeletingManySpeaks checks that the client of a deletion of many gets the warnings of each, and the audit log the annotations,
// though many goroutines give them.
func TestDeletingManySpeaks(t *testing.T) {
	policy := "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata, verbs: [deletecollection]}]\n"
	l, recorded := auditLog(t, policy)
	h := newHubOf(t, registrytest.Kinds(), talkative{}, func(c *apiserver.Config) { c.Audit = l })
	const many = 40
	for i := range many {
		h.do("POST", configMaps, configMap(fmt.Sprint("a", i), ""))
	}
	warned := h.do("DELETE", configMaps, "").header.Values("Warning")
	h.stop()
	var e auditv1.Event
	if text := recorded(); json.Unmarshal([]byte(text), &e) != nil {
		t.Fatalf("no event: %s", text)
	}
	for i := range many {
		if want := fmt.Sprintf("299 - %q", fmt.Sprintf("a%d is going", i)); !slices.Contains(warned, want) {
			t.Errorf("no %s", want)
		}
		if e.Annotations[fmt.Sprint("gone/a", i)] != "yes" {
			t.Errorf("no annotation of a%d", i)
		}
	}
}

// talkative admits everything, with a warning and an annotation for each object that is deleted.
type talkative struct{}

func (talkative) Mutate(context.Context, *registry.AdmissionRequest) error { return nil }

func (talkative) Validate(ctx context.Context, a *registry.AdmissionRequest) error {
	if a.Operation == registry.OpDelete {
		warning.AddWarning(ctx, "", a.Name+" is going")
		audit.Annotate(ctx, auditinternal.LevelMetadata, "gone/"+a.Name, "yes")
	}
	return nil
}
