package storetest

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/sqlstore"
)

//go:embed testdata/*.txt
var scripts embed.FS

// runScripts plays each script against a fresh store. A script is a sequence of "> command" lines, each followed by the
// exact output that it must have; everything else up to the next command is that output, blank lines and # comments aside.
//
//	> commit put KEY VALUE [if=REV] ; del KEY [VALUE] [if=REV] …   one transaction; @ in VALUE marks where the revision goes
//	> get KEY
//	> list PREFIX [after=KEY] [limit=N] [at=REV]
//	> watch NAME PREFIX from=REV | next NAME | pos NAME | close NAME
//	> compact REV | rev
func runScripts(t *testing.T, open func(t testing.TB) Store) {
	names, err := fs.Glob(scripts, "testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range names {
		text, err := scripts.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(strings.TrimPrefix(name, "testdata/"), ".txt"), func(t *testing.T) {
			p := &player{ctx: t.Context(), store: open(t), watchers: map[string]sqlstore.Watcher{}}
			for _, s := range parseScript(string(text)) {
				if got := strings.TrimSpace(p.play(s.command)); got != s.want {
					t.Errorf("%s:%d: %s\ngot:\n%s\nwant:\n%s", name, s.line, s.command, got, s.want)
				}
			}
		})
	}
}

type step struct {
	line          int
	command, want string
}

func parseScript(text string) (steps []step) {
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "> "):
			steps = append(steps, step{line: i + 1, command: line[2:]})
		case line == "" || strings.HasPrefix(line, "#") || len(steps) == 0:
		default:
			s := &steps[len(steps)-1]
			s.want = strings.TrimSpace(s.want + "\n" + line)
		}
	}
	return steps
}

type player struct {
	ctx      context.Context
	store    Store
	watchers map[string]sqlstore.Watcher
}

func (p *player) play(command string) string {
	verb, rest, _ := strings.Cut(command, " ")
	args, opts := splitArgs(rest)
	switch verb {
	case "commit":
		return p.commit(rest)
	case "get":
		e, ok, err := p.store.Get(p.ctx, args[0])
		switch {
		case err != nil:
			return showError(err)
		case !ok:
			return "none"
		}
		return showEntry(e)
	case "list":
		limit, _ := strconv.Atoi(opts["limit"])
		page, err := p.store.List(p.ctx, strings.Join(args, ""), opts["after"], limit, rev(opts["at"]))
		return showPage(page, err)
	case "watch":
		w, err := p.store.Watch(p.ctx, args[1], rev(opts["from"]))
		if err != nil {
			return showError(err)
		}
		p.watchers[args[0]] = w
		return "ok"
	case "next":
		return showNext(p.ctx, p.watchers[args[0]])
	case "pos":
		return strconv.FormatInt(int64(p.watchers[args[0]].Revision()), 10)
	case "close":
		p.watchers[args[0]].Close()
		return "ok"
	case "compact":
		if err := p.store.Compact(p.ctx, rev(args[0])); err != nil {
			return showError(err)
		}
		return "ok"
	case "rev":
		rev, err := p.store.Revision(p.ctx)
		if err != nil {
			return showError(err)
		}
		return strconv.FormatInt(int64(rev), 10)
	}
	return "unknown command " + verb
}

func (p *player) commit(text string) string {
	var ops []sqlstore.Op
	for _, part := range strings.Split(text, ";") {
		args, opts := splitArgs(part)
		op := sqlstore.Op{Key: args[1], Delete: args[0] == "del", RevAt: -1, If: sqlstore.AnyRevision}
		if len(args) > 2 {
			before, after, marked := strings.Cut(args[2], "@")
			op.Value = []byte(before + after)
			if marked {
				op.RevAt = len(before)
			}
		}
		if cond, ok := opts["if"]; ok {
			op.If = rev(cond)
		}
		ops = append(ops, op)
	}
	revs, err := p.store.Commit(p.ctx, ops...)
	if err != nil {
		return showError(err)
	}
	return strings.Trim(fmt.Sprint(revs), "[]")
}

func splitArgs(text string) (args []string, opts map[string]string) {
	opts = map[string]string{}
	for _, f := range strings.Fields(text) {
		if k, v, ok := strings.Cut(f, "="); ok {
			opts[k] = v
		} else {
			args = append(args, f)
		}
	}
	return args, opts
}

func rev(s string) sqlstore.Revision {
	n, _ := strconv.ParseInt(s, 10, 64)
	return sqlstore.Revision(n)
}

func showEntry(e sqlstore.Entry) string {
	return fmt.Sprintf("%s %s rev=%d created=%d", e.Key, e.Value, e.Rev, e.Created)
}

func showPage(p sqlstore.Page, err error) string {
	if err != nil {
		return showError(err)
	}
	var b strings.Builder
	for _, e := range p.Entries {
		fmt.Fprintln(&b, showEntry(e))
	}
	fmt.Fprintf(&b, "at %d", p.Rev)
	if p.More {
		fmt.Fprintf(&b, ", %d more", p.Remain)
	}
	return b.String()
}

// quiet is how long a script waits before it says that a watcher has nothing. Every store here delivers before
// Commit returns, so this is only ever the price of a "nothing".
const quiet = 20 * time.Millisecond

func showNext(ctx context.Context, w sqlstore.Watcher) string {
	ctx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	events, err := w.Next(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return "nothing"
	}
	if err != nil {
		return showError(err)
	}
	return showEvents(events)
}

func showEvents(events []sqlstore.Event) string {
	var b strings.Builder
	for _, e := range events {
		what := "update"
		switch {
		case e.Deleted:
			what = "delete"
		case e.Created == e.Rev:
			what = "create"
		}
		fmt.Fprintf(&b, "%s %s rev=%d created=%d", what, e.Key, e.Rev, e.Created)
		if len(e.Value) > 0 { // a value of no bytes and no value are the same
			fmt.Fprintf(&b, " value=%s", e.Value)
		}
		if len(e.Prev) > 0 {
			fmt.Fprintf(&b, " prev=%s", e.Prev)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func showError(err error) string {
	var (
		conflict  *sqlstore.ConflictError
		compacted *sqlstore.CompactedError
		future    *sqlstore.FutureError
	)
	switch {
	case errors.As(err, &conflict):
		return fmt.Sprintf("conflict: %s is at %d", conflict.Key, conflict.Have)
	case errors.As(err, &compacted):
		return fmt.Sprintf("compacted: oldest is %d", compacted.Oldest)
	case errors.As(err, &future):
		return fmt.Sprintf("future: current is %d", future.Current)
	}
	return "error: " + err.Error()
}
