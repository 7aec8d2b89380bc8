package cli

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"os/signal"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"petrel.dev/petrel/internal/cli/livetable"
	"petrel.dev/petrel/internal/cli/message"
	"petrel.dev/petrel/internal/cli/printer"
	"petrel.dev/petrel/internal/cli/screen"
)

// live shows a table that changes in place, until ctx ends.
func (g *Get) live(ctx context.Context, c *conn, s *Streams, t target, ns string) error {
	if g.SortBy != "" {
		if _, err := printer.ParsePath(g.SortBy); err != nil {
			return err
		}
	}
	q := g.query()
	if t.name != "" {
		if _, err := c.get(ctx, t, ns); err != nil {
			return err
		}
		q.Set("fieldSelector", "metadata.name="+t.name)
	}
	q.Set("includeObject", "Metadata")
	if g.SortBy != "" {
		q.Set("includeObject", "Object")
	}
	resized := make(chan os.Signal, 1)
	screen.NotifyResize(resized)
	defer signal.Stop(resized)
	empty := "No resources found"
	if ns != "" && namespaced(t.mapping) {
		empty += " in " + ns + " namespace."
	}
	return livetable.Show(ctx, tables{c, path(t.mapping, ns, ""), q}, livetable.Options{
		Print: g.printOptions(t.mapping, ns, !g.NoHeaders, false), SortBy: g.SortBy, Empty: empty, Out: s.Out, Resized: resized, Explain: message.Of,
		Size: func() (int, int, bool) { return screen.Size(s.Out) },
	})
}

// tables are the objects of one type, as rows of the server's table.
type tables struct {
	conn  *conn
	path  string
	query url.Values
}

// List implements livetable.Source.
func (t tables) List(ctx context.Context) (*metav1.Table, string, error) {
	body, err := t.conn.raw(ctx, t.path, t.query, tableAccept)
	if err != nil {
		return nil, "", err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		return nil, "", err
	}
	table, err := decodeTable(b)
	if err != nil {
		return nil, "", err
	}
	return table, table.ResourceVersion, nil
}

// Watch implements livetable.Source.
func (t tables) Watch(ctx context.Context, version string, f func(watch.EventType, *metav1.Table)) error {
	q := url.Values{"watch": {"true"}, "resourceVersion": {version}}
	for k, v := range t.query {
		q[k] = v
	}
	return t.conn.follow(ctx, t.path, q, tableAccept, func(event string, raw json.RawMessage) (bool, error) {
		table, err := decodeTable(raw)
		if err == nil {
			f(watch.EventType(event), table)
		}
		return false, err
	})
}
