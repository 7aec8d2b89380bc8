package podset

import (
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/control"
)

// TestRefusalsHoldLongerEachTime checks that they hold longer: from a second to a minute, until the spec changes, something
// else goes wrong, or it works.
func TestRefusalsHoldLongerEachTime(t *testing.T) {
	var r refusals
	key := control.Key{Namespace: "default", Name: "web"}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	noRoom := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web-1", errors.New("no room"))
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		want *= time.Second
		r.note(key, 1, noRoom, now)
		wait, err := r.standing(key, 1, now)
		if wait != want || !errors.Is(err, error(noRoom)) {
			t.Errorf("refusal %d holds for %s (%v), want %s", i+1, wait, err, want)
		}
		if wait, _ := r.standing(key, 2, now); wait != 0 {
			t.Errorf("refusal %d holds for a changed spec too", i+1)
		}
		now = now.Add(want)
		if wait, _ := r.standing(key, 1, now); wait != 0 {
			t.Errorf("refusal %d still holds for %s after its time", i+1, wait)
		}
	}
	r.note(key, 2, noRoom, now)
	if wait, _ := r.standing(key, 2, now); wait != time.Second {
		t.Errorf("a changed spec begins anew: %s", wait)
	}
	for name, end := range map[string]func(){
		"another failure": func() { r.note(key, 2, errors.New("disk on fire"), now) },
		"success":         func() { r.note(key, 2, nil, now) },
		"forget":          func() { r.forget(key) },
	} {
		r.note(key, 2, noRoom, now)
		end()
		if wait, err := r.standing(key, 2, now); wait != 0 || err != nil {
			t.Errorf("%s leaves a refusal: %s, %v", name, wait, err)
		}
	}
}
