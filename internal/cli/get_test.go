package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A watch prints what there is, then each change, and an error that the server sends ends it with the server's words.
func TestGetWatch(t *testing.T) {
	h := newFakeHub(t)
	h.mux.HandleFunc("/api/v1/namespaces/default/pods", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") != "true" {
			writeJSON(w, http.StatusOK, corev1.PodList{
				TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "7"}, Items: []corev1.Pod{*fakePod("first", "c")},
			})
			return
		}
		enc := json.NewEncoder(w)
		_ = enc.Encode(map[string]any{"type": "ADDED", "object": fakePod("second", "c")})
		_ = enc.Encode(map[string]any{"type": "DELETED", "object": fakePod("first", "c")})
		_ = enc.Encode(map[string]any{"type": "ERROR", "object": metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: "too old resource version: 7",
		}})
	})
	var o output
	g := Get{Cluster: h.cluster(), Args: []string{"pods"}, Watch: true, Output: "name"}
	mustFail(t, g.Run(t.Context(), o.streams("")), "too old resource version: 7 (Expired)")
	if o.out.String() != "pod/first\npod/second\npod/first\n" || !h.asked("watch=true", "resourceVersion=7") {
		t.Errorf("%q after %q", o.out.String(), h.requests)
	}

	o = output{}
	g = Get{Cluster: h.cluster(), Args: []string{"pods"}, WatchOnly: true, Output: "name"}
	mustFail(t, g.Run(t.Context(), o.streams("")), "too old resource version")
	if strings.Count(o.out.String(), "pod/first") != 1 {
		t.Errorf("--watch-only prints %q", o.out.String())
	}

	mustFail(t, (&Get{Cluster: h.cluster(), Args: []string{"pods,services"}, Watch: true}).Run(t.Context(), o.streams("")), "--watch follows one resource type at a time")
}

// TestNamesShareATable checks that objects which are asked for by name are one table, with one width a column, as those of a list are.
func TestNamesShareATable(t *testing.T) {
	h := newFakeHub(t)
	for _, name := range []string{"a", "much-longer"} {
		h.mux.HandleFunc("/api/v1/namespaces/default/pods/"+name, func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, http.StatusOK, metav1.Table{
				TypeMeta:          metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/v1"},
				ColumnDefinitions: []metav1.TableColumnDefinition{{Name: "Name", Type: "string"}, {Name: "State", Type: "string"}},
				Rows:              []metav1.TableRow{{Cells: []any{name, "good"}}},
			})
		})
	}
	var o output
	g := Get{Cluster: h.cluster(), Args: []string{"pods", "a", "much-longer"}}
	if err := g.Run(t.Context(), o.streams("")); err != nil {
		t.Fatal(err)
	}
	if want := "NAME          STATE\na             good\nmuch-longer   good\n"; o.out.String() != want {
		t.Errorf("%q, want %q", o.out.String(), want)
	}
}

// TestLargeNumbersStayWhole checks that a number of a server's table is printed as the server sent it.
func TestLargeNumbersStayWhole(t *testing.T) {
	table, err := decodeTable([]byte(`{"kind":"Table","apiVersion":"meta.k8s.io/v1","columnDefinitions":[{"name":"Value","type":"integer"}],"rows":[{"cells":[2000001000]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(table.Rows[0].Cells[0]); got != "2000001000" {
		t.Errorf("the cell is printed as %s", got)
	}
}
