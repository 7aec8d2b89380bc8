package hollow

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/wire"
)

// smallFleetMiB is the budget of a hub with 100 nodes and 1,000 pods at rest (docs/performance.md), within restAfter: internal/lean gives
// memory back 5 s, 20 s and two minutes after the start.
const (
	smallFleetMiB = 60
	restAfter     = 2*time.Minute + 30*time.Second
)

// A hundred nodes with a thousand pods join, run, lose their hub and find it again, within the hub's memory budget.
func TestSmallFleet(t *testing.T) {
	h := run(t, 100, 10, 6*time.Second)
	for began := time.Now(); ; time.Sleep(5 * time.Second) {
		after := h.use()
		t.Logf("%s later: %v", time.Since(began).Round(time.Second), after)
		if after.rss <= smallFleetMiB<<10 {
			return
		}
		if time.Since(began) > restAfter {
			t.Fatalf("hub: %v; the budget is %d MiB", after, smallFleetMiB)
		}
	}
}

// As many as one asks for: PETREL_HOLLOW=nodes, 1,000 when not said.
func TestLargeFleet(t *testing.T) {
	if os.Getenv("PETREL_BENCH") == "" {
		t.Skip("reports figures only; make bench runs it")
	}
	n, err := strconv.Atoi(os.Getenv("PETREL_HOLLOW"))
	if err != nil {
		n = 1000
	}
	run(t, n, 10, 125*time.Second) // the last pass of internal/lean that belongs to the start is two minutes after it
}

// run takes a fleet through its day and logs what the hub has used. It returns the hub when nothing has happened for the time of quiet.
func run(t *testing.T, nodes, podsEach int, quiet time.Duration) *hub {
	h := startHub(t)
	s := stage{t: t, hub: h, nodes: nodes}
	s.begin()
	f := startFleet(t, h, nodes)
	const limit = 5 * time.Minute
	eventually(t, limit, "all nodes are connected", func() bool { return f.all(connected) })
	s.end("joined")

	f.services()
	f.pods(podsEach)
	running := h.running(t.Context())
	eventually(t, limit, "all pods run", func() bool { return running.Load() == int64(nodes*podsEach) })
	s.end("all pods created and reported running")

	f.change("before")
	eventually(t, limit, "a change is with every node", func() bool { return f.all(has(wire.KindService, "before")) })
	s.end("a Service has come to every node")

	h.kill()
	h.start()
	s.begin()
	f.change("after")
	eventually(t, limit, "all nodes are back and up to date", func() bool { return f.all(has(wire.KindService, "after")) })
	s.end("hub killed and started again, everybody back and up to date")

	time.Sleep(quiet)
	s.end(fmt.Sprintf("%v at rest", quiet))
	return h
}

// stage measures one part of a day.
type stage struct {
	t     *testing.T
	hub   *hub
	nodes int
	began time.Time
	from  use
}

func (s *stage) begin() { s.began, s.from = time.Now(), s.hub.use() }

func (s *stage) end(what string) {
	u := s.hub.use()
	s.t.Logf("%d nodes: %-64s %6.2f s; hub: CPU %5.2f s, %5.1f KB moved a node, %v", s.nodes, what,
		time.Since(s.began).Seconds(), (u.cpu - s.from.cpu).Seconds(), float64(u.moved-s.from.moved)/1000/float64(s.nodes), u)
	s.began, s.from = time.Now(), u
}

// services makes one Service for the pods of ten nodes.
func (f *fleet) services() {
	f.t.Helper()
	for g := range (len(f.nodes) + 9) / 10 {
		f.service(fmt.Sprintf("group-%03d", g), map[string]string{"group": strconv.Itoa(g)})
	}
}

// change makes something that every node has to hear of.
func (f *fleet) change(name string) { f.service(name, nil) }

func (f *fleet) service(name string, selector map[string]string) {
	f.t.Helper()
	_, err := f.hub.client.CoreV1().Services("default").Create(f.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: selector, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	must(f.t, err)
}

// pods makes some for each node, by eight clients at a time.
func (f *fleet) pods(each int) {
	f.t.Helper()
	work := make(chan int)
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range work {
				p := &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{
						Name:   fmt.Sprintf("app-%05d", i),
						Labels: map[string]string{"app": "app", "group": strconv.Itoa(i / each / 10)},
					},
					Spec: corev1.PodSpec{
						NodeName:   f.nodes[i/each].name,
						Containers: []corev1.Container{{Name: "app", Image: "registry.example/app:1.4.2", Env: []corev1.EnvVar{{Name: "MODE", Value: "hollow"}}}},
					},
				}
				if _, err := f.hub.client.CoreV1().Pods("default").Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	for i := range each * len(f.nodes) {
		work <- i
	}
	close(work)
	wg.Wait()
	if err := failed.Load(); err != nil {
		f.t.Fatal(*err)
	}
}

// running counts pods that the API calls running, from a watch.
func (h *hub) running(ctx context.Context) *atomic.Int64 {
	h.t.Helper()
	w, err := h.client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{})
	must(h.t, err)
	n := &atomic.Int64{}
	go func() {
		defer w.Stop()
		seen := map[string]bool{}
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && p.Status.Phase == corev1.PodRunning {
				seen[p.Name] = true
				n.Store(int64(len(seen)))
			}
		}
	}()
	return n
}
