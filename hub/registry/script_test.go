package registry_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts in testdata really answer into them")

// TestScripts runs the timelines in testdata. A line is a command; the lines below it, until an empty one, are its answer.
//
//	create NS/NAME [label=value ...]      a ConfigMap
//	label NS/NAME label=value ...         merge patch; "label-" removes
//	delete NS/NAME
//	compact                               forget all history
//	watch ID [NS] [option=value ...]      opens a watch: rv, match, labels, fields, bookmarks, initial
//	next ID N                             waits for N events of it, one a line; or its end
//	list [NS] [option=value ...]          rv, match, labels, fields, limit, continue (last: the token of the list before)
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	db := registrytest.Store(t)
	s := &script{
		t: t, db: db, watches: map[string]registry.Watch{},
		r: registrytest.Start(t, registry.Config{Store: db, BookmarkEvery: time.Millisecond}),
	}
	var got strings.Builder
	for i, block := range strings.Split(strings.TrimRight(string(text), "\n"), "\n\n") {
		if i > 0 {
			got.WriteString("\n")
		}
		for line := range strings.Lines(block) {
			line = strings.TrimRight(line, "\n")
			if strings.HasPrefix(line, "#") {
				fmt.Fprintln(&got, line)
				continue
			}
			fmt.Fprintln(&got, line)
			for _, out := range s.do(strings.Fields(line)) {
				fmt.Fprintln(&got, out)
			}
			break
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got.String() != string(text) {
		t.Errorf("%s answers:\n%s", file, got.String())
	}
}

// compactAll forgets all history.
func compactAll(t *testing.T, db registrytest.TestStore) {
	t.Helper()
	rev, err := db.Revision(t.Context())
	if err == nil {
		err = db.Compact(t.Context(), rev)
	}
	if err != nil {
		t.Fatal(err)
	}
}

type script struct {
	t       *testing.T
	db      registrytest.TestStore
	r       *registry.Registry
	watches map[string]registry.Watch
	token   string
}

func (s *script) do(words []string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if len(words) < 2 && words[0] != "compact" && words[0] != "list" {
		s.t.Fatalf("command %q needs arguments", words)
	}
	switch words[0] {
	case "create":
		ns, name, _ := strings.Cut(words[1], "/")
		obj := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{}}}
		for k, v := range options(words[2:]) {
			obj.Labels[k] = v
		}
		return answer(s.r.Create(ctx, registrytest.Target(s.t, kube.ConfigMap, ns, ""), obj, nil))
	case "label":
		ns, name, _ := strings.Cut(words[1], "/")
		labels := map[string]any{}
		for _, w := range words[2:] {
			if k, v, ok := strings.Cut(w, "="); ok {
				labels[k] = v
			} else {
				labels[strings.TrimSuffix(w, "-")] = nil
			}
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
		if err != nil {
			s.t.Fatal(err)
		}
		return answer(s.r.Patch(ctx, registrytest.Target(s.t, kube.ConfigMap, ns, name), types.MergePatchType, patch, nil))
	case "delete":
		ns, name, _ := strings.Cut(words[1], "/")
		if _, err := s.r.Delete(ctx, registrytest.Target(s.t, kube.ConfigMap, ns, name), nil); err != nil {
			return failure(err)
		}
		return nil
	case "compact":
		compactAll(s.t, s.db)
		return nil
	case "watch":
		return s.watch(ctx, words[1], words[2:])
	case "next":
		return s.next(ctx, words[1], words[2])
	case "list":
		return s.list(ctx, words[1:])
	}
	s.t.Fatalf("unknown command %q", words[0])
	return nil
}

func (s *script) watch(ctx context.Context, id string, words []string) []string {
	ns, opts := s.listOptions(words)
	w, err := s.r.Watch(ctx, registrytest.Target(s.t, kube.ConfigMap, ns, ""), opts)
	if err != nil {
		return failure(err)
	}
	s.t.Cleanup(w.Close)
	s.watches[id] = w
	return nil
}

func (s *script) next(ctx context.Context, id, count string) []string {
	var n int
	if _, err := fmt.Sscan(count, &n); err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for len(out) < n {
		evs, err := s.watches[id].Next(ctx)
		if err != nil {
			return append(out, failure(err)...)
		}
		for _, ev := range evs {
			out = append(out, string(ev.Type)+" "+describe(s.t, ev.JSON))
		}
	}
	return out
}

func (s *script) list(ctx context.Context, words []string) []string {
	ns, opts := s.listOptions(words)
	res, err := s.r.List(ctx, registrytest.Target(s.t, kube.ConfigMap, ns, ""), opts)
	if err != nil {
		if st, ok := err.(*apierrors.StatusError); ok && st.ErrStatus.Continue != "" {
			s.token = st.ErrStatus.Continue
		}
		return failure(err)
	}
	head := "at " + res.ResourceVersion
	if s.token = res.Continue; s.token != "" {
		head += ", more"
	}
	if res.Remaining != nil {
		head += fmt.Sprintf(", %d remain", *res.Remaining)
	}
	out := []string{head}
	for _, item := range res.Items {
		out = append(out, describe(s.t, item))
	}
	return out
}

func (s *script) listOptions(words []string) (ns string, opts *metav1.ListOptions) {
	if len(words) > 0 && !strings.Contains(words[0], "=") {
		ns, words = words[0], words[1:]
	}
	opts = &metav1.ListOptions{}
	for k, v := range options(words) {
		switch k {
		case "rv":
			opts.ResourceVersion = v
		case "match":
			opts.ResourceVersionMatch = metav1.ResourceVersionMatch(v)
		case "labels":
			opts.LabelSelector = v
		case "fields":
			opts.FieldSelector = v
		case "limit":
			if _, err := fmt.Sscan(v, &opts.Limit); err != nil {
				s.t.Fatal(err)
			}
		case "continue":
			if opts.Continue = v; v == "last" {
				opts.Continue = s.token
			}
		case "bookmarks":
			opts.AllowWatchBookmarks = v == "true"
		case "initial":
			initial := v == "true"
			opts.SendInitialEvents = &initial
		default:
			s.t.Fatalf("unknown option %q", k)
		}
	}
	return ns, opts
}

func options(words []string) map[string]string {
	m := map[string]string{}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		m[k] = v
	}
	return m
}

// describe shows what a timeline is about: "ns/name@resourceVersion label=value".
func describe(t *testing.T, raw []byte) string {
	t.Helper()
	var cm corev1.ConfigMap
	if err := json.Unmarshal(raw, &cm); err != nil {
		t.Fatal(err)
	}
	out := cm.Namespace + "/" + cm.Name + "@" + cm.ResourceVersion
	var labels []string
	for k, v := range cm.Labels {
		labels = append(labels, k+"="+v)
	}
	for k, v := range cm.Annotations {
		labels = append(labels, k+"="+v)
	}
	sort.Strings(labels)
	return strings.Join(append([]string{out}, labels...), " ")
}

func answer(res *registry.Result, err error) []string {
	if err != nil {
		return failure(err)
	}
	var meta struct{ Metadata metav1.ObjectMeta }
	if err := json.Unmarshal(res.JSON, &meta); err != nil {
		return []string{err.Error()}
	}
	return []string{"at " + meta.Metadata.ResourceVersion}
}

func failure(err error) []string {
	if st, ok := err.(*apierrors.StatusError); ok {
		return []string{fmt.Sprintf("%d %s: %s", st.ErrStatus.Code, st.ErrStatus.Reason, st.ErrStatus.Message)}
	}
	return []string{err.Error()}
}
