package ctrd

import (
	"context"
	"log/slog"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podlog"
)

// busy is a container that has ended, on a machine whose card is so busy that the look at it is given up while its end is
// written down.
type busy struct {
	client.Container
	giveUp  context.CancelFunc
	deleted bool
}

func (b *busy) Labels(context.Context) (map[string]string, error) { return nil, nil }

func (b *busy) Task(context.Context, cio.Attach) (client.Task, error) { return busyTask{b: b}, nil }

func (b *busy) SetLabels(ctx context.Context, l map[string]string) (map[string]string, error) {
	b.giveUp()
	return l, ctx.Err() // containerd has written it all the same
}

type busyTask struct {
	client.Task
	b *busy
}

func (t busyTask) Status(context.Context) (client.Status, error) {
	return client.Status{Status: client.Stopped, ExitStatus: 3}, nil
}

func (t busyTask) Delete(ctx context.Context, _ ...client.ProcessDeleteOpts) (*client.ExitStatus, error) {
	t.b.deleted = ctx.Err() == nil
	return nil, ctx.Err()
}

// TestEndOnABusyCard checks that once a container's end is being written down, its task is deleted and its log finished too:
// the next look sees the end, and does nothing more.
func TestEndOnABusyCard(t *testing.T) {
	pump, err := podlog.NewPump(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := &Runtime{cfg: Config{Log: slog.New(slog.DiscardHandler)}, pump: pump, ending: map[string]chan struct{}{}}
	ctx, giveUp := context.WithCancel(t.Context())
	b := &busy{giveUp: giveUp}
	c, err := r.ended(ctx, b, cruntime.Container{ID: "c", PodUID: "p"})
	if err != nil || c.State != cruntime.Exited || c.ExitCode != 3 || !b.deleted {
		t.Errorf("%v, exit code %d, %v; task deleted: %t", c.State, c.ExitCode, err, b.deleted)
	}
}
