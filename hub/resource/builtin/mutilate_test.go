package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/resourcetest"
	"petrel.dev/petrel/internal/kube"
)

// Whatever a client leaves out, empties or repeats, the rules accept or refuse it; they never panic, and what they accept
// can be stored, shown and selected.
func TestRulesStandAnything(t *testing.T) {
	damaged(t, func(t *rapid.T, k *resource.Kind, obj kube.Object) { standsRules(t, k, obj) })
}

// TestDeclarativeValidationFindsNothingMore checks that leaving out the validation that upstream generates from tags changes no
// answer: what the written rules accept has no fault for it.
func TestDeclarativeValidationFindsNothingMore(t *testing.T) {
	found := 0
	damaged(t, func(t *rapid.T, k *resource.Kind, obj kube.Object) {
		accepted := len(resourcetest.Create(k, obj)) == 0
		for _, e := range resource.Scheme().Validate(t.Context(), nil, obj) {
			found++
			if accepted && !e.IsAlpha() {
				t.Errorf("accepted, and upstream's tags find: %v", e)
			}
		}
	})
	if found == 0 {
		t.Error("nothing was found at all: are upstream's validations registered?")
	}
}

// damaged calls check with the sample of each kind, changed in one to three random places.
func damaged(t *testing.T, check func(t *rapid.T, k *resource.Kind, obj kube.Object)) {
	for _, k := range New().All() {
		t.Run(k.Plural+"."+k.GVK.Group, func(t *testing.T) {
			whole, err := json.Marshal(made(t, k))
			if err != nil {
				t.Fatal(err)
			}
			rapid.Check(t, func(t *rapid.T) {
				var v any
				if err := json.Unmarshal(whole, &v); err != nil {
					t.Fatal(err)
				}
				for range rapid.IntRange(1, 3).Draw(t, "cuts") {
					v = mutilate(t, v)
				}
				data, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				obj, err := k.Codec.Decode(data)
				if err != nil {
					return
				}
				func() {
					defer resource.RecoverConversion(&err) // which the registry answers as a bad request
					check(t, k, obj)
				}()
			})
		})
	}
}

func standsRules(t *rapid.T, k *resource.Kind, obj kube.Object) {
	ctx := context.Background()
	old, err := k.Codec.Decode([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if old, err = k.ToStored(ctx, old); err != nil {
		t.Fatal(err)
	}
	accepted := len(resourcetest.Create(k, obj)) == 0
	if k.Virtual() { // no verb but create
		return
	}
	if obj, err = k.ToStored(ctx, obj); err != nil {
		t.Fatal(err)
	}
	resourcetest.Update(&k.Rules, obj.DeepCopyObject().(kube.Object), old)
	resourcetest.Update(&k.Rules, old.DeepCopyObject().(kube.Object), obj)
	for _, s := range k.Subresources {
		if s.Rules != nil {
			resourcetest.Update(s.Rules, obj.DeepCopyObject().(kube.Object), old)
		}
		if s.Get != nil {
			if body, err := s.Get(obj); err == nil {
				_ = s.Put(obj, body)
			}
		}
	}
	if !accepted {
		return
	}
	if k.Rules.WarnCreate != nil {
		k.Rules.WarnCreate(ctx, obj)
	}
	k.Fields(obj)
	for _, index := range k.Indexes {
		index(obj)
	}
	if _, _, err := k.Stored().Codec.Encode(obj); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Stored().Columns(ctx, []kube.Object{obj}, &metav1.TableOptions{}); err != nil {
		t.Fatal(err)
	}
}

// mutilate changes one random place of a JSON value.
func mutilate(t *rapid.T, v any) any {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 || rapid.IntRange(0, 7).Draw(t, "here") == 0 {
			break
		}
		key := rapid.SampledFrom(slices.Sorted(maps.Keys(v))).Draw(t, "key")
		if rapid.IntRange(0, 3).Draw(t, "drop") == 0 {
			delete(v, key)
		} else {
			v[key] = mutilate(t, v[key])
		}
		return v
	case []any:
		if len(v) == 0 || rapid.IntRange(0, 7).Draw(t, "here") == 0 {
			break
		}
		i := rapid.IntRange(0, len(v)-1).Draw(t, fmt.Sprint("item of ", len(v)))
		if rapid.IntRange(0, 3).Draw(t, "repeat") == 0 {
			return append(v, v[i])
		}
		v[i] = mutilate(t, v[i])
		return v
	case string:
		return rapid.SampledFrom([]any{nil, "", "x/y", "UPPER", "-", "0", v + v}).Draw(t, "string")
	case float64:
		return rapid.SampledFrom([]any{nil, 0.0, -1.0, int64(1 << 31), v + 1}).Draw(t, "number")
	}
	return rapid.SampledFrom([]any{nil, map[string]any{}, []any{}}).Draw(t, "empty")
}
