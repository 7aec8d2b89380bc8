package ctrd

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/client"

	"petrel.dev/petrel/edgeagent/cgroup"
	"petrel.dev/petrel/edgeagent/cruntime"
)

// exitRecord is how a container ended.
type exitRecord struct {
	Code       int       `json:"code"`
	At         time.Time `json:"at"`
	OOM        bool      `json:"oom,omitempty"`
	Lost       bool      `json:"lost,omitempty"`
	StartError string    `json:"startError,omitempty"`
}

const (
	// lookLimit is how long a container's shim may take to say how the container is.
	lookLimit = 10 * time.Second
	// endLimit is how long it may take to write down how it has ended and to take what is left of its log: a write to a busy
	// card can take longer than a look may. What is begun is not cut off with the look.
	endLimit = time.Minute
)

// ended writes down how a container ended and lets go of its task. One caller at a time does so for a container: a
// second one, which saw the task gone, must not take it for lost.
func (r *Runtime) ended(ctx context.Context, container client.Container, c cruntime.Container) (cruntime.Container, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	done, err := r.beginEnd(ctx, c.ID)
	if err != nil {
		return c, err
	}
	defer done()
	labels, err := container.Labels(ctx)
	if err != nil {
		return c, err
	}
	e, known := readExit(labels)
	if !known {
		e = exitRecord{Code: 255, At: time.Now().UTC(), Lost: true}
		task, err := container.Task(ctx, nil)
		if err == nil {
			if st, err := task.Status(ctx); err == nil {
				e = exitRecord{Code: int(st.ExitStatus), At: st.ExitTime.UTC(), OOM: r.cgroups.OOMKilled(cgroup.Path(c.PodUID, c.ID))}
			}
		}
		if err := writeExit(ctx, container, e); err != nil {
			return c, err
		}
		r.turns.Delete(c.PodUID, func() { r.dropTask(ctx, c, task) })
	}
	return e.of(c), nil
}

// of returns a container as having ended so.
func (e exitRecord) of(c cruntime.Container) cruntime.Container {
	c.State = cruntime.Exited
	c.ExitCode, c.FinishedAt, c.OOMKilled, c.Lost, c.StartError = e.Code, e.At, e.OOM, e.Lost, e.StartError
	if c.StartError != "" {
		c.StartedAt = time.Time{}
	}
	return c
}

// beginEnd returns when nobody else writes down how a container has ended; then the caller does, until it calls done.
func (r *Runtime) beginEnd(ctx context.Context, id string) (done func(), err error) {
	for {
		r.mu.Lock()
		other := r.ending[id]
		if other == nil {
			mine := make(chan struct{})
			r.ending[id] = mine
			delete(r.tasks, id)
			r.mu.Unlock()
			return func() {
				r.mu.Lock()
				delete(r.ending, id)
				r.mu.Unlock()
				close(mine)
			}, nil
		}
		r.mu.Unlock()
		if !await(ctx, other, endLimit) {
			return nil, fmt.Errorf("the end of container %s is still being written down", id)
		}
	}
}

// await waits until done is closed, and reports whether it is: no longer than limit, and than ctx lasts.
func await(ctx context.Context, done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// dropTask lets go of the task of a container whose end is written down; nil: it has none. It may be called long after that, so it has its
// own time; ctx has the namespace.
func (r *Runtime) dropTask(ctx context.Context, c cruntime.Container, task client.Task) {
	if task != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
		defer cancel()
		if err := r.deleteTask(ctx, c.PodUID, c.ID, task); err != nil {
			r.cfg.Log.Debug("ended task not deleted", "container", c.ID, "error", err)
		}
	}
	r.pump.Finish(c.LogPath) // the task is gone once the shim has written all there was
}

func readExit(labels map[string]string) (exitRecord, bool) {
	var e exitRecord
	s := labels[labelExit]
	return e, s != "" && json.Unmarshal([]byte(s), &e) == nil
}

func writeExit(ctx context.Context, container client.Container, e exitRecord) error {
	if len(e.StartError) > 2000 {
		e.StartError = e.StartError[:2000]
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = container.SetLabels(ctx, map[string]string{labelExit: string(b)})
	return err
}
