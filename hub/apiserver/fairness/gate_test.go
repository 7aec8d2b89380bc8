package fairness

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/internal/kube"
)

// stored are the objects of every cluster, and a test's own.
type stored struct {
	version uint64
	levels  []*flowcontrolv1.PriorityLevelConfiguration
	schemas []*flowcontrolv1.FlowSchema
}

// everyCluster returns what every cluster has.
func everyCluster() *stored {
	return &stored{
		levels:  append(bootstrap.MandatoryPriorityLevelConfigurations[:2:2], bootstrap.SuggestedPriorityLevelConfigurations...),
		schemas: append(bootstrap.MandatoryFlowSchemas[:2:2], bootstrap.SuggestedFlowSchemas...),
	}
}

func (s *stored) Version(kube.GVK) uint64 { return s.version }

func (s *stored) List(gvk kube.GVK, _ string) (out []kube.Object) {
	if gvk == kube.FlowSchema {
		for _, o := range s.schemas {
			out = append(out, o)
		}
		return out
	}
	for _, o := range s.levels {
		out = append(out, o)
	}
	return out
}

// change has the objects changed by f.
func (s *stored) change(f func()) { f(); s.version++ }

func gate(s *stored, seats int) *Gate {
	return New(Config{Objects: s, Seats: seats, Count: func(context.Context, string) int { return 250 }})
}

func account(name string) auth.User {
	return auth.User{Name: "system:serviceaccount:default:" + name, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
}

var lists = auth.Attributes{Resource: true, Verb: "list", APIVersion: "v1", Plural: "pods", Namespace: "default"}

// soon is how long requests of these tests wait.
func soon() time.Time { return time.Now().Add(10 * time.Second) }

// enter has a user's list wait for a seat.
func enter(t *testing.T, g *Gate, u auth.User) (Seat, error) {
	return g.Enter(t.Context(), g.Classify(&u, &lists), 1, soon())
}

// TestClasses checks which level the usual clients get, and that everybody has one when nothing is stored yet.
func TestClasses(t *testing.T) {
	full, empty := gate(everyCluster(), 400), gate(&stored{}, 400)
	for _, c := range []struct {
		user          auth.User
		about         auth.Attributes
		want, without string
	}{
		{auth.User{Name: "root", Groups: []string{"system:masters", "system:authenticated"}}, lists, "exempt", "exempt"},
		{auth.User{Name: "system:node:a", Groups: []string{"system:nodes", "system:authenticated"}}, lists, "system", "catch-all"},
		{auth.User{Name: "system:node:a", Groups: []string{"system:nodes"}},
			auth.Attributes{Resource: true, Verb: "update", Plural: "nodes", Subresource: "status", Name: "a"}, "node-high", "catch-all"},
		{account("x"), lists, "workload-low", "catch-all"},
		{auth.User{Name: "system:serviceaccount:kube-system:x"}, lists, "workload-high", "catch-all"},
		{auth.User{Name: "system:serviceaccount:kube-system:x"}, auth.Attributes{Resource: true, Verb: "update", APIGroup: "coordination.k8s.io", Plural: "leases", Namespace: "a"}, "leader-election", "catch-all"},
		{auth.User{Name: "system:serviceaccount:kube-system-not:x"}, lists, "catch-all", "catch-all"},
		{auth.User{Name: "anna", Groups: []string{"system:authenticated"}}, lists, "global-default", "catch-all"},
		{auth.User{Name: "system:anonymous", Groups: []string{"system:unauthenticated"}}, auth.Attributes{Verb: "get", Path: "/livez/ping"}, "exempt", "catch-all"},
		{auth.User{Name: "system:anonymous", Groups: []string{"system:unauthenticated"}}, auth.Attributes{Verb: "get", Path: "/livezzz"}, "global-default", "catch-all"},
		{auth.User{Name: "without groups"}, lists, "catch-all", "catch-all"},
	} {
		for g, want := range map[*Gate]string{full: c.want, empty: c.without} {
			class := g.Classify(&c.user, &c.about)
			if class.schema.level.name != want || class.Exempt() != (want == "exempt") {
				t.Errorf("%s %+v: %s", c.user.Name, c.about, class.schema.level.name)
			}
		}
	}
}

// takeAll takes all seats that a user can have at once.
func takeAll(t *testing.T, g *Gate, u auth.User) (seats []Seat) {
	t.Helper()
	for {
		ctx, stop := context.WithCancel(t.Context())
		got := make(chan Seat, 1)
		go func() {
			if s, err := g.Enter(ctx, g.Classify(&u, &lists), 1, soon()); err == nil {
				got <- s
			}
		}()
		synctest.Wait()
		stop()
		synctest.Wait()
		select {
		case s := <-got:
			seats = append(seats, s)
		default:
			return seats
		}
	}
}

// TestGreedyClient checks that a client with all seats that it can get, and as many waiting requests, delays neither another one of its
// level nor one of another level; and that those who wait get their turns in turn, until nothing is left over.
func TestGreedyClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(everyCluster(), 100)
		greedy := takeAll(t, g, account("greedy"))
		if len(greedy) < 20 || len(greedy) > 40 {
			t.Errorf("the client has %d of 100 seats", len(greedy))
		}
		var mu sync.Mutex
		var order []string
		wait := func(u auth.User) {
			s, err := enter(t, g, u)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, u.Name)
			mu.Unlock()
			s.Leave()
		}
		for range 300 { // 6 hands of 50
			go wait(account("greedy"))
		}
		synctest.Wait()
		if _, err := enter(t, g, account("greedy")); !apierrors.IsTooManyRequests(err) || !strings.HasPrefix(err.Error(), "Too many requests, please try again later") {
			t.Errorf("the 301st in the queue: %v", err)
		}
		for _, u := range []auth.User{account("other"), {Name: "anna", Groups: []string{"system:authenticated"}}, {Name: "system:node:a", Groups: []string{"system:nodes"}}} {
			s, err := enter(t, g, u) // at once: nothing would wake this test otherwise
			if err != nil {
				t.Fatal(err)
			}
			s.Leave()
			s.Leave() // it is given back once
		}
		others := takeAll(t, g, account("second"))
		go wait(account("second"))
		synctest.Wait()
		greedy[0].Leave()
		others[0].Leave()
		synctest.Wait()
		if i := slices.Index(order, account("second").Name); i < 0 || i > 2 {
			t.Errorf("the second client came after %d requests of %d", i, len(order))
		}
		for _, s := range append(greedy[1:], others[1:]...) {
			s.Leave()
		}
		synctest.Wait()
		if len(order) != 301 {
			t.Errorf("%d served", len(order))
		}
		nothingLeft(t, g)
	})
}

// nothingLeft checks that a gate that nobody uses has forgotten all requests.
func nothingLeft(t *testing.T, g *Gate) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting != 0 || g.seats.used != 0 {
		t.Errorf("%d wait, %d seats in use", g.waiting, g.seats.used)
	}
	kept := 0
	for _, l := range g.levels {
		kept += l.guaranteed
		if l.used != 0 || l.waiting != 0 || len(l.flows) != 0 || len(l.turns) != 0 {
			t.Errorf("left over: %+v", l)
		}
	}
	if g.seats.kept != kept {
		t.Errorf("%d seats are kept, not %d", g.seats.kept, kept)
	}
}

// TestEveryLevelHasItsSeats checks that what levels are guaranteed is there, however much others have borrowed.
func TestEveryLevelHasItsSeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(everyCluster(), 400)
		for i := range 20 {
			takeAll(t, g, account(fmt.Sprint("greedy", i)))
		}
		if got := len(takeAll(t, g, account("late"))); got > 1 {
			t.Errorf("the level had %d seats left", got)
		}
		for user, want := range map[string]int{"anna": 17 / 2, "system:node:a": 33 / 2} {
			u := auth.User{Name: user, Groups: []string{"system:authenticated"}}
			if strings.HasPrefix(user, "system:node") {
				u.Groups = append(u.Groups, "system:nodes")
			}
			if got := len(takeAll(t, g, u)); got < want {
				t.Errorf("%s has %d seats, not %d", user, got, want)
			}
		}
	})
}

// TestWidths checks how many seats requests take, and that one that takes many gets them although others take few.
func TestWidths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(everyCluster(), 400)
		for _, c := range []struct {
			verb, name, query string
			want              int
		}{
			{"list", "", "", 3}, {"list", "one", "", 1}, {"get", "", "", 1}, {"list", "", "limit=50", 1}, {"list", "", "limit=50&labelSelector=a", 3}, {"list", "", "limit=x", 3},
			{"watch", "", "", 3}, {"watch", "", "resourceVersion=0", 3}, {"watch", "", "resourceVersion=7", 1}, {"watch", "", "resourceVersion=7&sendInitialEvents=true", 3},
			{"watch", "", "sendInitialEvents=false", 1}, {"deletecollection", "", "", 3}, {"create", "", "", 1},
		} {
			query, _ := url.ParseQuery(c.query)
			if got := g.Width(t.Context(), &auth.Attributes{Verb: c.verb, Name: c.name}, "/core/pods/", query); got != c.want {
				t.Errorf("%+v takes %d", c, got)
			}
		}
		if got := g.Width(t.Context(), &lists, "", nil); got != 1 {
			t.Errorf("what is not stored takes %d", got)
		}

		var taken []Seat
		for i := range 40 {
			taken = append(taken, takeAll(t, g, account(fmt.Sprint(i)))...)
		}
		var wide Seat
		go func() {
			u := account("wide")
			wide, _ = g.Enter(t.Context(), g.Classify(&u, &lists), 10, soon())
		}()
		synctest.Wait()
		for i := range 9 {
			taken[i].Leave()
		}
		synctest.Wait()
		narrow := false
		go func() {
			if s, err := enter(t, g, account("narrow")); err == nil {
				s.Leave()
				narrow = true
			}
		}()
		synctest.Wait()
		if wide.level != nil || narrow {
			t.Errorf("with nine seats free, wide %v, narrow %v: those behind it should wait", wide.level != nil, narrow)
		}
		taken[9].Leave()
		synctest.Wait()
		if wide.width != 10 {
			t.Errorf("with ten seats free it has %d", wide.width)
		}
	})
}

// TestWaitingEnds checks the ways in which a request gives up, and what is counted.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := everyCluster()
		g := gate(s, 400)
		u := account("x")
		seats := takeAll(t, g, u)
		if _, err := enter(t, g, u); !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "waited too long") {
			t.Errorf("after the time: %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if _, err := g.Enter(ctx, g.Classify(&u, &lists), 1, soon()); err != context.Canceled {
			t.Errorf("a client that has gone: %v", err)
		}
		nobody := auth.User{Name: "nobody"}
		for range 9 { // "catch-all" has as many seats, and no queue
			if _, err := enter(t, g, nobody); err != nil {
				t.Fatal(err)
			}
		}
		s.change(func() {
			zero := int32(0)
			l := s.levels[0].DeepCopy()
			l.Spec.Limited.BorrowingLimitPercent = &zero
			s.levels = append([]*flowcontrolv1.PriorityLevelConfiguration{l}, s.levels[1:]...)
		})
		if _, err := enter(t, g, nobody); !apierrors.IsTooManyRequests(err) {
			t.Errorf("a level without queues: %v", err)
		}
		low := g.tallies[tallyKey{"workload-low", "service-accounts"}]
		if low.executing != len(seats) || low.waiting != 0 || low.rejected != [4]uint64{0, 0, 1, 2} || low.dispatched.Load() != uint64(len(seats)) {
			t.Errorf("%+v", low)
		}
		if rejected := g.tallies[tallyKey{"catch-all", "catch-all"}].rejected; rejected != [4]uint64{1, 0, 0, 0} {
			t.Errorf("%v", rejected)
		}
	})
}

// TestLevelsComeAndGo checks that a change of the objects counts for the next request, that requests of a level that goes end in order,
// and that those that wait for it get their turn.
func TestLevelsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := everyCluster()
		g := gate(s, 400)
		u, one := account("x"), int32(1)
		own := bootstrap.SuggestedPriorityLevelConfigurationWorkloadLow.DeepCopy()
		own.Name, own.UID, own.Spec.Limited.NominalConcurrencyShares, own.Spec.Limited.BorrowingLimitPercent = "own", "l1", &one, new(int32)
		schema := bootstrap.SuggestedFlowSchemaServiceAccounts.DeepCopy()
		schema.Name, schema.UID, schema.Spec.MatchingPrecedence, schema.Spec.PriorityLevelConfiguration.Name = "own", "f1", 10, "own"
		s.change(func() { s.schemas = append(s.schemas, schema) })
		if c := g.Classify(&u, &lists); c.schema.level.name != "workload-low" {
			t.Errorf("a schema without a level is used: %s", c.schema.level.name)
		}
		s.change(func() { s.levels = append(s.levels, own) })
		class := g.Classify(&u, &lists)
		if f, l := class.UIDs(); f != "f1" || l != "l1" {
			t.Errorf("%s, %s", f, l)
		}
		first, err := enter(t, g, u) // shares of 1 of 246: two seats, of which one client has one
		if err != nil {
			t.Fatal(err)
		}
		served := false
		go func() {
			s, err := g.Enter(t.Context(), class, 1, soon())
			if served = err == nil; served {
				s.Leave()
			}
		}()
		synctest.Wait()
		s.change(func() { s.levels, s.schemas = s.levels[:len(s.levels)-1], s.schemas[:len(s.schemas)-1] })
		if c := g.Classify(&u, &lists); c.schema.level.name != "workload-low" || served {
			t.Errorf("%s, served %v", c.schema.level.name, served)
		}
		first.Leave()
		synctest.Wait()
		if !served {
			t.Error("the one that waited has no turn")
		}
		s.change(func() {})
		g.Classify(&u, &lists)
		if g.levels["own"] != nil || g.tallies[tallyKey{"own", "own"}] != nil {
			t.Error("the level is not forgotten")
		}
		late, err := g.Enter(t.Context(), class, 1, soon()) // classified while it was there
		if err != nil {
			t.Fatal(err)
		}
		late.Leave()
		s.change(func() {})
		g.Classify(&u, &lists)
		nothingLeft(t, g)
	})
}

// TestLargeNumbers has a level of the largest numbers that the API takes. Their products need 64 bits; an int of ARMv6 and ARMv7 has 32.
func TestLargeNumbers(t *testing.T) {
	p, huge := bootstrap.SuggestedPriorityLevelConfigurationWorkloadLow.DeepCopy(), int32(math.MaxInt32)
	p.Spec.Limited.NominalConcurrencyShares, p.Spec.Limited.BorrowingLimitPercent = &huge, &huge
	q := p.Spec.Limited.LimitResponse.Queuing
	q.Queues, q.HandSize, q.QueueLengthLimit = 10_000_000, 8, huge
	l := &level{}
	l.limit(p, 400, int64(huge)+245)
	if l.nominal != 400 || l.most != 400 || l.queued != math.MaxInt32 || l.ofFlow != math.MaxInt32 || l.widest != 50 {
		t.Errorf("nominal %d, most %d, queued %d, of a flow %d, widest %d", l.nominal, l.most, l.queued, l.ofFlow, l.widest)
	}
}

// TestWaitingIsBounded checks that requests of all clients together that wait are bounded, and that one client leaves room for others.
func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := everyCluster()
		s.change(func() { // queues without end
			l := s.levels[6].DeepCopy()
			if l.Name != "workload-low" {
				t.Fatal(l.Name)
			}
			l.Spec.Limited.LimitResponse.Queuing.QueueLengthLimit = 100_000
			s.levels = slices.Clone(s.levels)
			s.levels[6] = l
		})
		g := gate(s, 50)
		ctx, stop := context.WithCancel(t.Context())
		flood := func(name string) {
			u := account(name)
			takeAll(t, g, u)
			for range maxWaiting + 10 {
				go func() { _, _ = g.Enter(ctx, g.Classify(&u, &lists), 1, soon()) }()
			}
			synctest.Wait()
		}
		flood("a")
		if g.waiting != maxWaiting/2 {
			t.Errorf("one client waits with %d requests", g.waiting)
		}
		for i := range 20 {
			flood(fmt.Sprint("b", i))
		}
		if g.waiting > maxWaiting || g.waiting < maxWaiting-10 {
			t.Errorf("%d wait", g.waiting)
		}
		stop()
		synctest.Wait()
		if g.waiting != 0 {
			t.Errorf("%d still wait", g.waiting)
		}
	})
}

// BenchmarkEnter measures what a request costs that no other one hinders, with the objects of every cluster.
func BenchmarkEnter(b *testing.B) {
	g := gate(everyCluster(), 400)
	u := account("x")
	until := time.Now().Add(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		s, err := g.Enter(b.Context(), g.Classify(&u, &lists), 1, until)
		if err != nil {
			b.Fatal(err)
		}
		s.Leave()
	}
}
