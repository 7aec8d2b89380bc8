package conversion

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"petrel.dev/petrel/hub/webhook"
	"petrel.dev/petrel/internal/memtest"
)

// TestHostileConverters asks a webhook over HTTP that answers with anything but what it was asked for. Each answer is an error that names the
// kind and what is wrong, in bounded memory.
func TestHostileConverters(t *testing.T) {
	const object = `{"apiVersion":"example.dev/v2","kind":"Thing","metadata":{"name":"a","namespace":"n","uid":"u"}}`
	// with answers with these objects, and more in the response.
	with := func(objects, more string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var review struct{ Request struct{ UID string } }
			_ = json.NewDecoder(r.Body).Decode(&review)
			fmt.Fprintf(w, `{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","response":{"uid":%q,"result":{"status":"Success"},"convertedObjects":%s%s}}`, review.Request.UID, objects, more)
		}
	}
	replaced := func(old, by string) http.HandlerFunc { return with("["+strings.Replace(object, old, by, 1)+"]", "") }
	write := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	endless := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := io.WriteString(w, text); err != nil {
					return
				}
			}
		}
	}
	mega := strings.Repeat("x", 1<<20)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		says   string
	}{
		"other name":         {replaced(`"a"`, `"b"`), "must have the same name: a != b"},
		"other namespace":    {replaced(`"n"`, `"kube-system"`), "must have the same namespace: n != kube-system"},
		"other UID":          {replaced(`"u"`, `"v"`), "must have the same UID: u != v"},
		"no UID":             {replaced(`,"uid":"u"`, ``), "must have the same UID"},
		"other kind":         {replaced(`Thing`, `Secret`), "must have the same kind: Thing != Secret"},
		"other version":      {replaced(`dev/v2`, `dev/v1`), "invalid groupVersion (expected example.dev/v2, received example.dev/v1)"},
		"other group":        {replaced(`example.dev/v2`, `v1`), "invalid groupVersion (expected example.dev/v2, received v1)"},
		"no kind":            {replaced(`"kind":"Thing",`, ``), "Object 'Kind' is missing"},
		"a list":             {with(`[{"apiVersion":"example.dev/v2","kind":"ThingList","items":[`+object+`]}]`, ""), "must have the same kind"},
		"no object":          {with(`[null]`, ""), "returned invalid converted object at index 0"},
		"a number":           {with(`[7]`, ""), "returned invalid converted object at index 0"},
		"no list":            {with(`{"a":1}`, ""), "convertedObjects is no list"},
		"none":               {with(`[]`, ""), "returned 0 objects, expected 1"},
		"nothing":            {with(`null`, ""), "returned 0 objects, expected 1"},
		"two":                {with("["+object+","+object+"]", ""), "returned 2 objects, expected 1"},
		"very many":          {with("["+strings.Repeat("{},", 300_000)+"{}]", ""), "returned 300001 objects, expected 1"},
		"much to decode":     {replaced(`"metadata"`, `"x":[`+strings.Repeat(`{"":0},`, 120_000)+`0],"metadata"`), "bytes of memory"},
		"metadata of a kind": {replaced(`"uid"`, `"labels":[],"uid"`), "invalid metadata.labels of type []interface {}"},
		"wrong labels":       {replaced(`"uid"`, `"labels":{"a b":"c"},"uid"`), "metadata.labels: Invalid value"},
		"no strings":         {replaced(`"uid"`, `"labels":{"a":{}},"uid"`), "metadata.labels[a] must be a string"},
		"large annotations":  {replaced(`"uid"`, `"annotations":{"a":"`+strings.Repeat("x", 300<<10)+`"},"uid"`), "Too long"},
		"very many labels":   {replaced(`"uid"`, `"labels":{"":""`+strings.Repeat(`,"a b":""`, 100_000)+`},"uid"`), "metadata.labels"},
		"many causes":        {with("[]", `,"result":{"status":"Failure","message":"no","details":{"causes":[`+strings.Repeat("{},", 300_000)+"{}]}}"), "failed: no"},
		"long message":       {with("[]", `,"result":{"status":"Failure","message":"`+strings.Repeat("x", 500_000)+`"}`), strings.Repeat("x", maxMessage) + "..."},
		"no success":         {with("[]", `,"result":{"status":"Maybe"}`), "response.result.status was 'Maybe', not 'Success'"},
		"another review":     {write(`{"apiVersion":"apiextensions.k8s.io/v2","kind":"ConversionReview","response":{}}`), "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got apiextensions.k8s.io/v2"},
		"admission":          {write(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"allowed":true}}`), "got admission.k8s.io/v1, Kind=AdmissionReview"},
		"of another request": {write(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","response":{"uid":"x","result":{"status":"Success"},"convertedObjects":[]}}`), "expected response.uid="},
		"no response":        {write(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview"}`), "no response provided"},
		"HTML":               {write("<html><body>It works!</body></html>"), "decode response: invalid character '<'"},
		"empty":              {write(""), "decode response: unexpected end of JSON input"},
		"deep":               {write(strings.Repeat(`{"response":`, 50_000)), "decode response"},
		"deep object":        {replaced(`"metadata"`, `"x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`,"metadata"`), "nested more than 1000 deep"},
		"endless":            {endless(strings.Repeat(" ", 64<<10)), "which is the limit"},
		"endless object":     {endless(`{"apiVersion":"apiextensions.k8s.io/v1",` + strings.Repeat(`"a":{"b":[{},{}]},`, 1000)), "which is the limit"},
		"100 MB": {func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				_, _ = io.WriteString(w, mega)
			}
		}, "which is the limit"},
		"an error": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, strings.Repeat("x", 1<<20), 500) }, "has prevented the request from succeeding"},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, "status code 307"},
		"half an answer": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"a":`)
			panic(http.ErrAbortHandler)
		}, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := over(t, c.answer), c.says
			original := thing("a", 1)
			original.SetNamespace("n")
			original.SetUID("u")
			var err error
			n := memtest.Allocated(func() { _, err = c.Convert(t.Context(), []*unstructured.Unstructured{original}, v2) })
			if err == nil || !strings.Contains(err.Error(), s) || !strings.HasPrefix(err.Error(), "conversion webhook for example.dev/v1, Kind=Thing ") || len(err.Error()) > 16<<10 {
				t.Errorf("%.2000v", err)
			}
			if n > 64 {
				t.Errorf("%d MiB were allocated", n)
			}
		})
	}
}

// over returns a converter by a webhook of this test.
func over(t *testing.T, answer http.HandlerFunc) *Converter {
	s := httptest.NewUnstartedServer(answer)
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	url := s.URL + "/convert"
	return New(&apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter, Webhook: &apiextensionsv1.WebhookConversion{
		ConversionReviewVersions: []string{"v1"}, ClientConfig: &apiextensionsv1.WebhookClientConfig{URL: &url, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})},
	}}, webhook.New(nil))
}

// TestHangingConverter checks that the request's time bounds a webhook that does not answer.
func TestHangingConverter(t *testing.T) {
	c := over(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Convert(ctx, []*unstructured.Unstructured{thing("a", 1)}, v2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// TestManySmallAnswers checks that objects which are small each, and too much together, are refused before they are decoded.
func TestManySmallAnswers(t *testing.T) {
	var objs []*unstructured.Unstructured
	for i := range 100 {
		objs = append(objs, thing(fmt.Sprint(i), 10_000))
	}
	c := &caller{answer: func(r *apiextensionsv1.ConversionReview) {
		bomb := make([]any, 5000)
		for i := range bomb {
			bomb[i] = map[string]any{"": int64(0)}
		}
		for _, o := range r.Response.ConvertedObjects {
			o.Object.(*unstructured.Unstructured).Object["x"] = bomb
		}
	}}
	if _, err := New(byService(443, "v1"), c).Convert(t.Context(), objs, v2); err == nil || !strings.Contains(err.Error(), "the converted objects would take more than") {
		t.Errorf("%v", err)
	}
}
