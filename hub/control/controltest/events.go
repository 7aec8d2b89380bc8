package controltest

import (
	"fmt"
	"strings"
	"sync"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Events collects events as lines: "Normal SuccessfulCreate ReplicaSet/web: Created pod: web-x".
type Events struct {
	mu    sync.Mutex
	lines []string
}

var _ control.Events = (*Events)(nil)

// Event adds a line.
func (e *Events) Event(obj kube.Object, eventType, reason, format string, args ...any) {
	message := format
	if len(args) > 0 {
		message = fmt.Sprintf(format, args...)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, fmt.Sprintf("%s %s %s/%s: %s", eventType, reason, control.GVKOf(obj).Kind, obj.GetName(), message))
}

// Take returns the lines since the last call.
func (e *Events) Take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lines
	e.lines = nil
	return l
}

func lower(s string) string { return strings.ToLower(s) }

// suffix is what generateName adds: five characters, different each time, the same in each run.
func suffix(n uint64) string { return fmt.Sprintf("%05d", n) }
