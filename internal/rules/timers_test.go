package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Why the hub may set a timer. None of these waits for something that happens inside the hub: that is awaited by its revision
// (objects.WaitFor, CatchUp), by a subscription or by a channel, never by looking again after a while.
const (
	deadline = "ends something that takes too long"
	due      = "something is due at a known time; without it no timer runs"
	backoff  = "tries again after a failure"
)

// timers lists each file of the hub that waits for time to pass, with how often it calls what, and why.
var timers = map[string]struct {
	calls  map[string]int
	reason string
}{
	"aggregate/swagger/documents.go":     {map[string]int{"NewTimer": 1}, deadline},
	"apiserver/podstream/log.go":         {map[string]int{"NewTimer": 1}, deadline},
	"apiserver/podstream/portforward.go": {map[string]int{"NewTimer": 1}, deadline},
	"apiserver/podstream/spdy.go":        {map[string]int{"NewTimer": 2}, deadline},
	"auth/opentokens.go":                 {map[string]int{"AfterFunc": 1}, due},
	"auth/pki.go":                        {map[string]int{"NewTicker": 1}, "certificates are looked at twice a day: a timer of months would stand still while the machine sleeps"},
	"auth/usertoken/usertoken.go":        {map[string]int{"AfterFunc": 1}, due},
	"backup/schedule.go":                 {map[string]int{"NewTimer": 1}, due},
	"broker/broker.go":                   {map[string]int{"NewTimer": 1, "AfterFunc": 1}, deadline},
	"broker/external.go":                 {map[string]int{"After": 1, "NewTimer": 1}, backoff + "; " + deadline},
	"control/queue.go":                   {map[string]int{"AfterFunc": 1}, due},
	"control/recorder.go":                {map[string]int{"NewTimer": 1}, due},
	"control/schedule/scheduler.go":      {map[string]int{"NewTimer": 1}, due},
	"crd/schemas.go":                     {map[string]int{"AfterFunc": 1}, due},
	"dispatch/loop.go":                   {map[string]int{"NewTimer": 1}, due},
	"dispatch/attempt.go":                {map[string]int{"NewTimer": 1}, deadline},
	"dispatch/intake.go":                 {map[string]int{"NewTimer": 1}, due + "; " + backoff},
	"dispatch/streams.go":                {map[string]int{"AfterFunc": 1}, deadline},
	"listen.go":                          {map[string]int{"Sleep": 1}, backoff},
	"lobby.go":                           {map[string]int{"AfterFunc": 1}, due},
	"quota/tally.go":                     {map[string]int{"AfterFunc": 1}, due},
	"nodemetrics/ask.go":                 {map[string]int{"AfterFunc": 1}, due},
	"prefetch/prefetch.go":               {map[string]int{"After": 1}, backoff},
	"resource/openapi/openapi.go":        {map[string]int{"AfterFunc": 1}, due},
	"rotate.go":                          {map[string]int{"NewTicker": 1}, "backups go once a night, by the store's own clock"},
	"registry/expiry/queue.go":           {map[string]int{"NewTimer": 1}, due},
	"registry/expiry/kinds.go":           {map[string]int{"After": 1}, backoff},
	"registry/fieldmanager/types.go":     {map[string]int{"AfterFunc": 1}, due},
}

// TestTheHubDoesNotPoll holds the hub to its list of timers. Who waits for another part of the hub by trying again is wrong as
// soon as the hub is busy, and costs a hub that is idle.
func TestTheHubDoesNotPoll(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range load(t) {
		rel, inside := strings.CutPrefix(p.ImportPath, module+"/hub")
		if !inside || rel != "" && rel[0] != '/' || strings.HasSuffix(p.ImportPath, "test") {
			continue
		}
		for _, f := range p.GoFiles {
			name := strings.TrimPrefix(rel+"/"+f, "/")
			calls := timeCalls(t, filepath.Join(p.Dir, f))
			if len(calls) == 0 {
				continue
			}
			seen[name] = true
			if !maps.Equal(calls, timers[name].calls) {
				t.Errorf("hub/%s calls %v of time (and wait), its line in internal/rules/timers_test.go says %v: wait for what happens, or write the reason there",
					name, calls, timers[name].calls)
			}
		}
	}
	if len(seen) < 10 {
		t.Fatalf("only %d files with timers were found", len(seen))
	}
	for _, name := range slices.Sorted(maps.Keys(timers)) {
		if !seen[name] || timers[name].reason == "" {
			t.Errorf("hub/%s is listed and has no timer, or no reason", name)
		}
	}
}

// timeCalls counts what of a file waits for time to pass.
func timeCalls(t *testing.T, path string) map[string]int {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		from, ok := sel.X.(*ast.Ident)
		switch {
		case !ok:
		case from.Name == "time" && slices.Contains([]string{"Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}, sel.Sel.Name):
			calls[sel.Sel.Name]++
		case from.Name == "wait" && (strings.HasPrefix(sel.Sel.Name, "Poll") || strings.HasPrefix(sel.Sel.Name, "Until") || strings.HasPrefix(sel.Sel.Name, "Jitter")):
			calls["wait."+sel.Sel.Name]++
		}
		return true
	})
	return calls
}
