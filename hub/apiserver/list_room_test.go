package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
)

// lists counts how often one object was listed that is as large as a user may have lists built at a time.
type lists struct {
	registry.Verbs
	read int
}

func (l *lists) List(context.Context, resource.Target, *metav1.ListOptions) (*registry.ListResult, error) {
	l.read++
	return &registry.ListResult{Items: []json.RawMessage{bytes.Repeat([]byte(" "), 16<<20)}}, nil
}

// TestListsThatWaitHoldNothing checks that a list that finds no room to be built is read again when there is, and that room is given back.
func TestListsThatWaitHoldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		verbs := &lists{}
		x := &exchange{s: &server{Config: Config{Verbs: verbs}, budgets: newBudgets(Limits{})}, ctx: t.Context(), user: auth.User{Name: "a"}, t: resource.Target{Kind: &resource.Kind{}}}
		protobuf := media.Form{Media: media.Protobuf}
		_, first, err := x.readList(protobuf, nil)
		if err != nil || verbs.read != 1 {
			t.Fatalf("read %d times: %v", verbs.read, err)
		}
		if _, done, err := x.readList(media.Form{Media: media.JSON}, nil); err != nil || verbs.read != 2 {
			t.Fatalf("a list that is written item by item: read %d times: %v", verbs.read, err)
		} else {
			done()
		}
		ended := make(chan func())
		go func() {
			res, done, err := x.readList(protobuf, nil)
			if err != nil || len(res.Items) != 1 {
				t.Errorf("%v, %v", res, err)
			}
			ended <- done
		}()
		synctest.Wait()
		if verbs.read != 3 {
			t.Errorf("read %d times before there was room", verbs.read)
		}
		first()
		(<-ended)()
		if verbs.read != 4 {
			t.Errorf("read %d times", verbs.read)
		}
		began := time.Now()
		if _, done, err := x.readList(protobuf, nil); err != nil || verbs.read != 5 || time.Since(began) != 0 {
			t.Errorf("room was not given back: read %d times, after %s: %v", verbs.read, time.Since(began), err)
		} else {
			done()
		}
	})
}
