package nodemetrics

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	statsv1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

const (
	// fresh is how long an answer of a node serves: dashboards and autoscalers ask every 15 s at most.
	fresh = 15 * time.Second
	// forget is when answers are dropped after nobody has asked for any.
	forget = time.Minute
	// patience is how long a node may take, the second that it measures included. Without an answer it has no metrics.
	patience = 8 * time.Second
	// abreast is how many nodes are asked at a time.
	abreast = 32
	// maxSummary bounds what a node answers, in bytes.
	maxSummary = 8 << 20
)

// answer is what one node has answered. It is immutable once done is closed.
type answer struct {
	done chan struct{}
	at   time.Time // when it was asked for
	err  error
	use  use
}

// question is what a node is asked for: all of its pods, or those that a query names. It is the key of its answer.
type question struct{ node, query string }

// about returns the question for some pods of a node, which costs the link only what they take.
func about(node string, uids []string) question {
	slices.Sort(uids)
	return question{node, url.Values{kube.StatsPodParameter: uids}.Encode()}
}

// use is what a node and its pods use.
type use struct {
	at     time.Time // when it was measured
	window time.Duration
	node   load
	pods   map[string][]containerLoad // by UID
}

// load is in billionths of a processor and in bytes; ok is false where one of them is not known.
type load struct {
	cpu, memory uint64
	ok          bool
}

type containerLoad struct {
	name string
	load
}

// asker asks nodes, each once for all who want to know at the same time.
type asker struct {
	cfg Config

	mu      sync.Mutex
	answers map[question]*answer // guarded by mu
	clear   *time.Timer          // empties answers; nil before the first; guarded by mu
}

// of returns what a node and its pods use; false when it is dark or does not answer.
func (a *asker) of(ctx context.Context, q question) (use, bool) {
	if a.cfg.Absent(q.node) != nil {
		return use{}, false
	}
	ans := a.answer(ctx, q)
	select {
	case <-ans.done:
		return ans.use, ans.err == nil
	case <-ctx.Done():
		return use{}, false
	}
}

// all asks nodes, several at a time.
func (a *asker) all(ctx context.Context, questions []question) map[string]use {
	var mu sync.Mutex
	out := map[string]use{}
	var wg sync.WaitGroup
	turn := make(chan struct{}, abreast)
	for _, q := range questions {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			if u, ok := a.of(ctx, q); ok {
				mu.Lock()
				defer mu.Unlock()
				out[q.node] = u
			}
		})
	}
	wg.Wait()
	return out
}

// answer returns a fresh answer to a question, or one that is under way. That of a node about all of its pods answers every question.
func (a *asker) answer(ctx context.Context, q question) *answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.answers == nil {
		a.answers = map[question]*answer{}
	}
	if a.clear == nil {
		a.clear = time.AfterFunc(forget, a.drop)
	}
	a.clear.Reset(forget)
	for _, known := range []question{q, {node: q.node}} {
		if ans := a.answers[known]; ans != nil && time.Since(ans.at) < fresh {
			return ans
		}
	}
	maps.DeleteFunc(a.answers, func(_ question, ans *answer) bool { return time.Since(ans.at) > forget }) // about pods that are gone
	ans := &answer{done: make(chan struct{}), at: time.Now()}
	a.answers[q] = ans
	ctx = context.WithoutCancel(ctx) // others may wait for it too
	go func() {
		defer close(ans.done)
		ans.err = contain.Do(a.cfg.Log, "nodemetrics", q.node, func() (err error) {
			ans.use, err = a.ask(ctx, q)
			return err
		})
		if ans.err != nil {
			a.cfg.Log.Debug("node has no metrics", "node", q.node, "error", ans.err)
			a.failed(q, ans)
		}
	}()
	return ans
}

// failed forgets an answer that is an error: the next who asks tries again.
func (a *asker) failed(q question, ans *answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.answers[q] == ans {
		delete(a.answers, q)
	}
}

func (a *asker) drop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers = nil
}

// ask asks a node.
func (a *asker) ask(ctx context.Context, q question) (use, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := a.cfg.Nodes.DialNode(ctx, q.node, 0)
	if err != nil {
		return use{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/stats/summary", nil)
	if err != nil {
		return use{}, err
	}
	req.URL.RawQuery, req.Close = q.query, true
	if err := req.Write(conn); err != nil {
		return use{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return use{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return use{}, fmt.Errorf("the node answered %s", resp.Status)
	}
	var sum statsv1.Summary
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxSummary)).Decode(&sum); err != nil {
		return use{}, fmt.Errorf("decode summary: %w", err)
	}
	window, err := time.ParseDuration(resp.Header.Get(kube.StatsWindowHeader))
	if err != nil {
		return use{}, fmt.Errorf("the summary has no window: %w", err)
	}
	return useOf(&sum, window), nil
}

// useOf keeps what is shown of a summary.
func useOf(sum *statsv1.Summary, window time.Duration) use {
	u := use{at: time.Now(), window: window, node: loadOf(sum.Node.CPU, sum.Node.Memory), pods: make(map[string][]containerLoad, len(sum.Pods))}
	if sum.Node.CPU != nil {
		u.at = sum.Node.CPU.Time.Time
	}
	for _, p := range sum.Pods {
		list := make([]containerLoad, 0, len(p.Containers))
		for _, c := range p.Containers {
			list = append(list, containerLoad{c.Name, loadOf(c.CPU, c.Memory)})
		}
		u.pods[p.PodRef.UID] = list
	}
	return u
}

func loadOf(cpu *statsv1.CPUStats, memory *statsv1.MemoryStats) load {
	if cpu == nil || cpu.UsageNanoCores == nil || memory == nil || memory.WorkingSetBytes == nil {
		return load{}
	}
	return load{*cpu.UsageNanoCores, *memory.WorkingSetBytes, true}
}
