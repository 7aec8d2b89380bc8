package objects_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/memory"
)

// sealingStore has the values of pages sealed, by a mark before them; one key's do not open.
type sealingStore struct {
	sqlstore.Store
	forged string
}

// List is not asked by the cache.
func (s *sealingStore) List(context.Context, string, string, int, sqlstore.Revision) (sqlstore.Page, error) {
	return sqlstore.Page{}, errors.New("all of it would be in clear")
}

func (s *sealingStore) ListSealed(ctx context.Context, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, sqlstore.Opener, error) {
	p, err := s.Store.List(ctx, prefix, after, limit, at)
	p.Entries = slices.Clone(p.Entries)
	for i := range p.Entries {
		p.Entries[i].Value = append([]byte("sealed:"), p.Entries[i].Value...)
	}
	return p, func(e sqlstore.Entry) ([]byte, error) {
		if e.Key == s.forged {
			return nil, errors.New("forged")
		}
		return bytes.TrimPrefix(e.Value, []byte("sealed:")), nil
	}, err
}

// TestSealedObjectsAreOpenedOneByOne checks that the cache takes encrypted objects as they are kept and opens each for itself, and that one
// which does not open hides no other.
func TestSealedObjectsAreOpenedOneByOne(t *testing.T) {
	kinds, store := builtin.New(), memory.New(memory.Config{})
	k, _ := kinds.Lookup(kube.Secret)
	for _, name := range []string{"a", "b", "c"} {
		put(t, store, k, &corev1.Secret{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Data: map[string][]byte{"k": []byte(name)},
		})
	}
	c := objects.New(objects.Config{Store: &sealingStore{store, "/core/secrets/default/b"}, Kinds: kinds})
	var got []string
	for _, obj := range c.List(kube.Secret, "default") {
		got = append(got, string(obj.(*corev1.Secret).Data["k"]))
	}
	if !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("the cache has %q", got)
	}
}
