package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"petrel.dev/petrel/hub/auth"
)

const rules = `apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- level: None
  users: [quiet]
- level: Metadata
  resources: [{resources: [secrets, serviceaccounts/token]}]
- level: Request
  verbs: [patch]
- level: RequestResponse
  omitStages: [RequestReceived]
  resources: [{resources: [configmaps]}]
- level: None
  nonResourceURLs: ["/healthz*"]
- level: Metadata
`

func opened(t *testing.T, policy string, change func(*Config)) (*Log, string) {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{PolicyFile: filepath.Join(dir, "policy.yaml"), Path: filepath.Join(dir, "audit.log")}
	if change != nil {
		change(&cfg)
	}
	if err := os.WriteFile(cfg.PolicyFile, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l, cfg.Path
}

// written stops l and returns what it has written.
func written(t *testing.T, l *Log, path string) []auditv1.Event {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var events []auditv1.Event
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		var e auditv1.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%v in %.100s", err, lines.Text())
		}
		events = append(events, e)
	}
	return events
}

// counted checks what metrics say, by name and label.
func counted(t *testing.T, l *Log, want map[string]float64) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(l)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := strings.TrimPrefix(f.GetName(), "apiserver_audit_")
			for _, label := range m.Label {
				name += " " + label.GetValue()
			}
			got[name] = m.GetCounter().GetValue()
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("metrics are %v, want %v", got, want)
	}
}

func get(path string) (*httptest.ResponseRecorder, *http.Request) {
	r := httptest.NewRequest("GET", path, nil)
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	r.Header.Set("User-Agent", strings.Repeat("a", 2000))
	return httptest.NewRecorder(), r
}

func about(verb, plural, name string) auth.Attributes {
	return auth.Attributes{Verb: verb, Resource: true, APIVersion: "v1", Plural: plural, Namespace: "shop", Name: name, Path: "/api/v1/namespaces/shop/" + plural}
}

var ada = auth.User{Name: "ada", UID: "u1", Groups: []string{"ops"}, Extra: map[string][]string{"k": {"v"}}}

// TestLevels checks what an event has by its level, and which stages are recorded.
func TestLevels(t *testing.T) {
	l, path := opened(t, rules, nil)
	cm := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cm", UID: "1", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}}, Data: map[string]string{"a": "b"},
	}
	request := func(u auth.User, a auth.Attributes, during func(*Request)) {
		w, r := get(a.Path)
		q := l.Begin(w, r, time.Now(), u, a)
		if q != nil && w.Header().Get("Audit-ID") == "" {
			t.Error("the answer has no Audit-ID")
		}
		q.Decide(true, "because")
		q.Object(cm)
		q.Patch([]byte(`{"p":1}`))
		if q.WantsResponse() {
			q.Response([]byte(`{"kind":"ConfigMapList","items":[{"metadata":{"name":"x","managedFields":[]}}]}`))
		}
		if during != nil {
			during(q)
		}
		q.Done(201, nil)
		q.Done(500, nil) // only the first end counts
	}
	request(auth.User{Name: "quiet"}, about("create", "configmaps", ""), nil)
	request(ada, about("create", "secrets", "s"), nil)
	request(ada, about("patch", "pods", "p"), nil)
	request(ada, about("create", "configmaps", ""), nil)
	request(ada, auth.Attributes{Verb: "get", Path: "/healthz/ping"}, nil)
	request(ada, auth.Attributes{Verb: "get", Path: "/version"}, func(q *Request) {
		q.Fail(&metav1.Status{Status: "Failure", Reason: "NotFound", Message: "no", Code: 404})
	})
	events := written(t, l, path)
	var got []string
	for _, e := range events {
		got = append(got, strings.Join([]string{string(e.Level), string(e.Stage), e.Verb, e.RequestURI}, " "))
	}
	want := []string{
		"Metadata RequestReceived create /api/v1/namespaces/shop/secrets", "Metadata ResponseComplete create /api/v1/namespaces/shop/secrets",
		"Request RequestReceived patch /api/v1/namespaces/shop/pods", "Request ResponseComplete patch /api/v1/namespaces/shop/pods",
		"RequestResponse ResponseComplete create /api/v1/namespaces/shop/configmaps",
		"Metadata RequestReceived get /version", "Metadata ResponseComplete get /version",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("recorded are\n%s", strings.Join(got, "\n"))
	}
	secret, patch, full, version := events[1], events[3], events[4], events[6]
	if secret.RequestObject != nil || secret.ResponseObject != nil || secret.User.Username != "ada" || secret.ObjectRef.Name != "s" ||
		secret.ResponseStatus.Code != 201 || secret.Annotations["authorization.k8s.io/decision"] != "allow" || secret.Annotations["authorization.k8s.io/reason"] != "because" ||
		!slices.Equal(secret.SourceIPs, []string{"203.0.113.9", "192.0.2.1"}) || len(secret.UserAgent) != 1024+len("...TRUNCATED") || secret.AuditID != events[0].AuditID {
		t.Errorf("Metadata: %+v", secret)
	}
	if string(patch.RequestObject.Raw) != `{"p":1}` || patch.ResponseObject != nil {
		t.Errorf("Request: %+v", patch)
	}
	if full.ObjectRef.Name != "cm" || full.ObjectRef.UID != "1" || full.ResponseObject == nil || strings.Contains(string(full.ResponseObject.Raw), "managedFields") ||
		!strings.Contains(string(full.ResponseObject.Raw), `"name":"x"`) {
		t.Errorf("RequestResponse: %+v", full)
	}
	if version.ObjectRef != nil || version.ResponseStatus.Reason != "NotFound" || version.ResponseStatus.Code != 201 {
		t.Errorf("a path: %+v", version.ResponseStatus)
	}
}

// TestOtherEnds checks long requests, panics, refused credentials, long bodies and the id of a client.
func TestOtherEnds(t *testing.T) {
	l, path := opened(t, "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: RequestResponse}]\n", nil)
	begin := func(id string) *Request {
		w, r := get("/api/v1/pods?watch=1")
		r.Header.Set("Audit-ID", id)
		return l.Begin(w, r, time.Now(), ada, about("watch", "pods", ""))
	}
	q := begin("mine")
	q.Start(200)
	q.Start(200)
	q.Done(200, nil)
	begin(strings.Repeat("x", 65)).Done(0, "boom")
	w, r := get("/api/v1/pods")
	r.Header.Set("Authorization", "Bearer x")
	l.Refuse(w, r, time.Now(), about("list", "pods", ""))
	q = begin("long")
	q.Response(append([]byte(`"`), bytes.Repeat([]byte("x"), maxBody)...))
	q.Done(200, nil)
	events := written(t, l, path)
	if len(events) != 5 {
		t.Fatalf("%d events", len(events))
	}
	if e := events[0]; e.Stage != "ResponseStarted" || e.AuditID != "mine" || events[1].Stage != "ResponseComplete" {
		t.Errorf("a watch: %+v", e)
	}
	if e := events[2]; e.Stage != "Panic" || e.ResponseStatus.Code != 500 || !strings.Contains(e.ResponseStatus.Message, "boom") || len(e.AuditID) != 36 {
		t.Errorf("a panic: %+v", e)
	}
	if e := events[3]; e.Stage != "ResponseStarted" || e.ResponseStatus.Code != 401 || e.ResponseStatus.Message != "Authentication failed, attempted: bearer" || e.User.Username != "" {
		t.Errorf("refused: %+v", e)
	}
	if e := events[4]; e.ResponseObject != nil || e.Annotations["audit.k8s.io/truncated"] != "true" {
		t.Errorf("a long body: %+v", e)
	}
}

// TestStuckDisk checks that requests go on when nothing is written: each waits for a moment at most, and what was dropped is reported.
func TestStuckDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l, path := opened(t, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, omitStages: [RequestReceived]}]\n", nil)
		l.sink.log = slog.New(slog.NewTextHandler(&log, nil))
		began := time.Now()
		const fits = queueBytes / leastBytes
		for range fits + 3 {
			w, r := get("/version")
			r.Header.Del("User-Agent")
			l.Begin(w, r, time.Now(), ada, auth.Attributes{Verb: "get", Path: "/version"}).Done(200, nil)
		}
		if took := time.Since(began); took != 3*patience {
			t.Errorf("took %s", took)
		}
		if events := written(t, l, path); len(events) != fits {
			t.Errorf("%d of %d were written", len(events), fits)
		}
		counted(t, l, map[string]float64{"event_total": fits + 3, "error_total log": 3, "level_total Metadata": fits + 3, "level_total None": 0, "level_total Request": 0, "level_total RequestResponse": 0})
		if !strings.Contains(log.String(), "audit events were dropped") || !strings.Contains(log.String(), "events=3") {
			t.Errorf("the log says %q", log.String())
		}
	})
}

// TestPolicies checks that what is no policy is refused with the reason.
func TestPolicies(t *testing.T) {
	const head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
	for text, want := range map[string]string{
		"{":                                  "yaml",
		"kind: Policy":                       `not a Policy of audit.k8s.io/v1`,
		head:                                 "it has no rules",
		head + "rules: [{level: Meta}]":      `rules[0].level: Unsupported value: "Meta"`,
		head + "rules: [{levels: Metadata}]": `unknown field "levels"`,
		head + "rules: [{level: None, nonResourceURLs: [x], resources: [{resources: [pods]}]}]": "must begin with a '/'",
		head + "omitStages: [Later]\nrules: [{level: None}]":                                    "allowed stages are",
	} {
		if _, err := parsePolicy([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	dir := t.TempDir()
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Path: "x"}, "give --audit-policy-file"},
		{Config{PolicyFile: "x"}, "give --audit-log-path"},
		{Config{PolicyFile: filepath.Join(dir, "none"), Path: "x"}, "no such file"},
	} {
		if _, err := Open(c.cfg, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
	if l, err := Open(Config{}, nil); l != nil || err != nil {
		t.Errorf("without a policy: %v, %v", l, err)
	}
}

// TestAnnotations checks that an event has what any goroutine annotates its request with, at the levels that the policy asks for, and
// no more than fits.
func TestAnnotations(t *testing.T) {
	l, path := opened(t, rules, nil)
	w, r := get("/x")
	annotated := func(verb string, annotate func(ctx context.Context)) {
		q := l.Begin(w, r, time.Time{}, ada, auth.Attributes{Verb: verb, Path: "/x"})
		annotate(WithRequest(t.Context(), q))
		q.Done(200, nil)
		Annotate(WithRequest(t.Context(), q), auditinternal.LevelMetadata, "late", "x")
	}
	both := func(ctx context.Context) {
		Annotate(ctx, auditinternal.LevelMetadata, "m", "1")
		Annotate(ctx, auditinternal.LevelMetadata, "m", "2")
		Annotate(ctx, auditinternal.LevelRequest, "r", "3")
	}
	annotated("get", both)
	annotated("patch", both)
	annotated("get", func(ctx context.Context) {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() { Annotate(ctx, auditinternal.LevelMetadata, strconv.Itoa(i), "x") })
		}
		all.Wait()
	})
	annotated("get", func(ctx context.Context) {
		Annotate(ctx, auditinternal.LevelMetadata, "long", strings.Repeat("x", maxAnnotations))
	})
	var got []map[string]string
	for _, e := range written(t, l, path) {
		if e.Stage == auditv1.StageResponseComplete {
			got = append(got, e.Annotations)
		}
	}
	many := map[string]string{}
	for i := range 8 {
		many[strconv.Itoa(i)] = "x"
	}
	want := []map[string]string{{"m": "1"}, {"m": "1", "r": "3"}, many, {"audit.k8s.io/truncated": "true"}}
	if !slices.EqualFunc(got, want, maps.Equal) {
		t.Errorf("annotations are %v", got)
	}
}

// TestOff checks that a hub without a policy records nothing, and allocates nothing for it.
func TestOff(t *testing.T) {
	var l *Log
	w, r := get("/version")
	if n := testing.AllocsPerRun(100, func() {
		q := l.Begin(w, r, time.Time{}, ada, auth.Attributes{})
		q.Decide(true, "")
		q.Object(nil)
		q.Patch(nil)
		q.Response(nil)
		q.Fail(nil)
		q.Start(200)
		ctx := WithRequest(r.Context(), q)
		Annotate(ctx, auditinternal.LevelMetadata, "a", "b")
		if Records(ctx, auditinternal.LevelMetadata) {
			t.Error("a request is recorded")
		}
		q.Done(200, nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
