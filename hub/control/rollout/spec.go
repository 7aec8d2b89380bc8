package rollout

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"petrel.dev/petrel/internal/kube"
)

const (
	maxWaves           = 50
	maxSoak            = 30 * 24 * time.Hour
	defaultPodDeadline = 10 * time.Minute
)

// Spec is what the annotations of a workload ask for.
type Spec struct {
	// Waves come in order, each one together with those before it; the last one has everything. At least one.
	Waves []Wave
	// PodDeadline is how long an updated pod may take to become available before it counts as failed.
	PodDeadline time.Duration

	soak        time.Duration
	approval    bool      // each wave but the first waits for it
	approved    approval  // the last one that was given
	maxFailures *quantity // nil: failures stop nothing by themselves
	failures    string    // the annotation's text, by which a change is seen
	rollBack    bool      // go back when there are too many failures
	paused      bool
}

// Wave is a part of the fleet.
type Wave struct {
	selector labels.Selector // of nodes; nil: a percentage
	percent  int             // of all that is updated, in this wave and those before it
	text     string          // as it was written
}

// Selects reports whether the wave is one of nodes by label.
func (w Wave) Selects() bool { return w.selector != nil }

// quantity is a number, or a percentage.
type quantity struct{ n, percent int }

// of returns how many of total it is; a percentage is rounded down.
func (q quantity) of(total int) int { return q.n + int(int64(total)*int64(q.percent)/100) }

// approval is of a wave (1 is the first) of the rollout to one revision.
type approval struct {
	revision string
	wave     int
}

// Problem is an annotation that cannot be used.
type Problem struct{ Key, Value, Reason string }

func (p Problem) String() string {
	return fmt.Sprintf("annotation %s: %q cannot be used: %s", p.Key, p.Value, p.Reason)
}

// Parse reads the annotations of a workload. It returns nil without problems when its rollouts are not staged. With problems no rollout
// should start: the user wanted less to happen, not more.
func Parse(annotations map[string]string) (*Spec, []Problem) {
	r := reader{annotations: annotations}
	for key := range annotations {
		if strings.HasPrefix(key, kube.RolloutPrefix) && !known[key] {
			r.refuse(key, "there is no such setting: correct its name, or remove it")
		}
	}
	s := &Spec{PodDeadline: defaultPodDeadline}
	staged := false
	for key := range known {
		_, set := annotations[key]
		staged = staged || set && key != kube.RolloutState && key != kube.RolloutApproved
	}
	if !staged {
		return nil, r.problems
	}
	r.waves(s)
	s.soak = r.duration(kube.RolloutSoak, 0, 0, maxSoak)
	s.PodDeadline = r.duration(kube.RolloutPodDeadline, defaultPodDeadline, 10*time.Second, 24*time.Hour)
	s.approval = r.oneOf(kube.RolloutApproval, "none", "each") == "each"
	s.rollBack = r.oneOf(kube.RolloutOnFailure, "stop", "rollback") == "rollback"
	s.paused = r.oneOf(kube.RolloutPaused, "false", "true") == "true"
	r.failures(s)
	r.approvedWave(s)
	return s, r.problems
}

// known are the settings that there are.
var known = map[string]bool{kube.RolloutWaves: true, kube.RolloutSoak: true, kube.RolloutApproval: true, kube.RolloutMaxFailures: true, kube.RolloutOnFailure: true,
	kube.RolloutPodDeadline: true, kube.RolloutPaused: true, kube.RolloutApproved: true, kube.RolloutState: true}

// reader reads annotations, and collects what is wrong with them.
type reader struct {
	annotations map[string]string
	problems    []Problem
}

func (r *reader) refuse(key, format string, args ...any) {
	r.problems = append(r.problems, Problem{key, short(r.annotations[key]), fmt.Sprintf(format, args...)})
}

// short bounds what is repeated of a user's text.
func short(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}

func (r *reader) waves(s *Spec) {
	const example = "write percentages and node selectors with semicolons between them, such as \"ring=canary; 25%; 100%\""
	text, set := r.annotations[kube.RolloutWaves]
	last := 0
	for part := range strings.SplitSeq(text, ";") {
		part = strings.TrimSpace(part)
		if digits, ok := strings.CutSuffix(part, "%"); ok {
			n, err := strconv.Atoi(digits)
			if err != nil || n < 1 || n > 100 || n <= last {
				r.refuse(kube.RolloutWaves, "%q must be a percentage from 1%% to 100%%, and larger than the one before; %s", short(part), example)
				return
			}
			last = n
			s.Waves = append(s.Waves, Wave{percent: n, text: part})
			continue
		}
		if part == "" && !set {
			break
		}
		selector, err := labels.Parse(part)
		if err != nil || part == "" {
			r.refuse(kube.RolloutWaves, "%q is neither a percentage nor a selector of node labels; %s", short(part), example)
			return
		}
		s.Waves = append(s.Waves, Wave{selector: selector, text: part})
	}
	if last < 100 { // what no wave has named comes last
		s.Waves = append(s.Waves, Wave{percent: 100, text: "100%"})
	}
	if len(s.Waves) > maxWaves {
		r.refuse(kube.RolloutWaves, "there are more than %d waves", maxWaves)
	}
}

func (r *reader) duration(key string, otherwise, least, most time.Duration) time.Duration {
	text, ok := r.annotations[key]
	if !ok {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		r.refuse(key, "write a duration from %v to %v, such as 30m or 24h", least, most)
		return otherwise
	}
	return d
}

// oneOf reads a setting with two values, of which the first is the default.
func (r *reader) oneOf(key, otherwise, other string) string {
	switch text, ok := r.annotations[key]; {
	case !ok, text == otherwise:
		return otherwise
	case text == other:
		return other
	}
	r.refuse(key, "write %q or %q", otherwise, other)
	return otherwise
}

func (r *reader) failures(s *Spec) {
	text, ok := r.annotations[kube.RolloutMaxFailures]
	if !ok {
		if s.rollBack {
			r.refuse(kube.RolloutOnFailure, "it needs %s, which says how many failures are too many", kube.RolloutMaxFailures)
		}
		return
	}
	digits, percentage := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || percentage && n > 100 || n > math.MaxInt32 {
		r.refuse(kube.RolloutMaxFailures, "write how many pods may fail, such as 0 or 3, or 5%% of all")
		return
	}
	s.failures, s.maxFailures = text, &quantity{n: n}
	if percentage {
		s.maxFailures = &quantity{percent: n}
	}
}

func (r *reader) approvedWave(s *Spec) {
	text, ok := r.annotations[kube.RolloutApproved]
	if !ok {
		return
	}
	revision, digits, ok := strings.Cut(text, "/")
	wave, err := strconv.Atoi(digits)
	if !ok || err != nil || wave < 1 {
		r.refuse(kube.RolloutApproved, "write REVISION/WAVE as the condition %s says it, or use petrel rollout approve", kube.RolloutCondition)
		return
	}
	s.approved = approval{revision, wave}
}
