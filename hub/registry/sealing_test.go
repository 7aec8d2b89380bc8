package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// sealingStore has all values sealed in pages, by a mark before them, and counts what is opened.
type sealingStore struct {
	sqlstore.Store
	opened int   // bytes since it was last set to 0
	broken error // of opening
}

const sealMark = "sealed:"

func (s *sealingStore) ListSealed(ctx context.Context, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, sqlstore.Opener, error) {
	p, err := s.List(ctx, prefix, after, limit, at)
	p.Entries = slices.Clone(p.Entries)
	for i := range p.Entries {
		p.Entries[i].Value = append([]byte(sealMark), p.Entries[i].Value...)
	}
	return p, func(e sqlstore.Entry) ([]byte, error) {
		value, ok := bytes.CutPrefix(e.Value, []byte(sealMark))
		if !ok {
			return nil, errors.New("opened twice")
		}
		s.opened += len(value)
		return value, s.broken
	}, err
}

// TestSealedLists checks that of a list, and of what a watch begins with, no more is opened at a time than is shown next, and that all of it is
// shown once, in clear.
func TestSealedLists(t *testing.T) {
	s := &sealingStore{Store: registrytest.Store(t)}
	r := registrytest.Start(t, registry.Config{Store: s})
	const n, size, most = 12, 300 << 10, 1<<20 + 4096 // of each Secret, its metadata is little
	var want []string
	for i := range n {
		name := fmt.Sprintf("s%02d", i)
		want = append(want, name)
		registrytest.Create(t, r, &corev1.Secret{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"a": "b"}},
			Data: map[string][]byte{"k": []byte(strings.Repeat("x", size*3/4))},
		})
	}
	all := registrytest.Target(t, kube.Secret, "default", "")
	take := func(what string, names []string, raw []byte) []string {
		if s.opened > most {
			t.Errorf("%s: %d bytes were opened for what comes next", what, s.opened)
		}
		return append(names, registrytest.Decode[corev1.Secret](t, raw).Name)
	}
	begin := true
	for name, opts := range map[string]*metav1.ListOptions{"all": {}, "selected": {LabelSelector: "a=b"}, "limited": {Limit: n}} {
		s.opened = 0
		res, err := r.List(ctx, all, opts)
		if err != nil || s.opened > 0 && name != "selected" { // a selector looks at what no cache has
			t.Fatalf("list %s: %v, %d bytes were opened", name, err, s.opened)
		}
		var got []string
		s.opened = 0
		for items, err := range res.Portions(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			for _, raw := range items {
				got = take(name, got, raw)
			}
			s.opened = 0
		}
		if !slices.Equal(got, want) {
			t.Errorf("list %s: %q", name, got)
		}
		opts.Limit, opts.SendInitialEvents, opts.ResourceVersionMatch, opts.AllowWatchBookmarks = 0, &begin, metav1.ResourceVersionMatchNotOlderThan, true
		w, err := r.Watch(ctx, all, opts)
		if err != nil {
			t.Fatal(err)
		}
		if got = nil; name == "selected" {
			s.opened = 0
		}
		for ended := false; !ended; {
			events, err := w.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if ended = e.Type == watch.Bookmark; !ended {
					got = take("watch of "+name, got, e.JSON)
				}
			}
			s.opened = 0
		}
		w.Close()
		if !slices.Equal(got, want) {
			t.Errorf("watch of %s: %q", name, got)
		}
	}
	res, err := r.List(ctx, all, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := r.Watch(ctx, all, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s.broken = errors.New("forged")
	if _, err := w.Next(ctx); err != nil {
		t.Errorf("what was open already: %v", err)
	}
	for range 2 {
		if _, err := w.Next(ctx); !apierrors.IsInternalError(err) {
			t.Errorf("a watch shows what cannot be opened: %v", err)
		}
	}
	for items, err := range res.Portions(ctx) {
		if !apierrors.IsInternalError(err) {
			t.Errorf("a list shows what cannot be opened: %d items, %v", len(items), err)
		}
	}
	if _, err := r.Watch(ctx, all, nil); !apierrors.IsInternalError(err) {
		t.Errorf("a watch begins with what cannot be opened: %v", err)
	}
}

// rotatedStore takes a key away after each page: a later page's opener opens nothing of an earlier one.
type rotatedStore struct{ *sealingStore }

func (s rotatedStore) ListSealed(ctx context.Context, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, sqlstore.Opener, error) {
	p, open, err := s.sealingStore.ListSealed(ctx, prefix, after, limit, at)
	return p, func(e sqlstore.Entry) ([]byte, error) {
		if e.Key <= after {
			return nil, errors.New("its key was taken away")
		}
		return open(e)
	}, err
}

// TestSealedListWhileKeysRotate checks that a list which is read in several pages shows what it has found, also when a key was taken away
// between two of them.
func TestSealedListWhileKeysRotate(t *testing.T) {
	r := registrytest.Start(t, registry.Config{Store: rotatedStore{&sealingStore{Store: registrytest.Store(t)}}})
	const n = 510 // a page has 500
	var writes []control.Write
	for i := range n {
		s := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("s%03d", i)}}
		if i == 0 || i == n-1 {
			s.Labels = map[string]string{"a": "b"}
		}
		writes = append(writes, control.Write{Object: s})
	}
	if err := r.Client().Commit(ctx, writes); err != nil {
		t.Fatal(err)
	}
	res, err := r.List(ctx, registrytest.Target(t, kube.Secret, "default", ""), &metav1.ListOptions{LabelSelector: "a=b", Limit: 5})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for items, err := range res.Portions(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range items {
			got = append(got, registrytest.Decode[corev1.Secret](t, raw).Name)
		}
	}
	if !slices.Equal(got, []string{"s000", "s509"}) {
		t.Errorf("%q", got)
	}
}
