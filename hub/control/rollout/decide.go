package rollout

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// State is what is kept of a rollout in the workload's annotations. All else follows from pods and nodes.
type State struct {
	Revision string `json:"revision"`          // of the template that is rolled out
	From     string `json:"from,omitempty"`    // the last one that was rolled out everywhere: back to it goes without waves
	Wave     int    `json:"wave"`              // the open one; the first is 1
	Done     bool   `json:"done,omitempty"`    // all waves have been healthy
	Back     bool   `json:"back,omitempty"`    // it leads back to From of an earlier one
	Healthy  string `json:"since,omitempty"`   // since when the open wave is healthy, RFC 3339; "" when it is not
	Stopped  string `json:"stopped,omitempty"` // the maxFailures at which it was stopped; "" when it was not
}

// Encode returns the state as the annotation holds it.
func (s State) Encode() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic("rollout: a struct of plain fields has no JSON: " + err.Error())
	}
	return string(b)
}

// Seen is what a decision is made from.
type Seen struct {
	Annotations map[string]string
	Revision    string // of the current template
	// Previous is the revision of the pods that are not updated, "" when there are none.
	Previous string
	// Progress is how far each wave is; Total is all that is to be updated, dark nodes included.
	Progress []Progress
	Total    int
	Now      time.Time
}

// Decision is how far the rollout may go now.
type Decision struct {
	// Open is how many waves may be updated. 0: nothing more is.
	Open int
	// Waiting is whether nothing is to be done until time passes or a user acts.
	Waiting bool
	State   State
	// RollBack is the revision to go back to now, "" otherwise.
	RollBack string
	After    time.Duration // until time changes the decision; 0: it does not
	Status   corev1.ConditionStatus
	Reason   string
	Message  string
	Events   []Event
}

// Event is of type Normal or Warning.
type Event struct{ Type, Reason, Message string }

// Refused returns the decision for annotations that cannot be used: nothing is updated until they are corrected.
func Refused(annotations map[string]string, problems []Problem) Decision {
	texts := make([]string, len(problems))
	for i, p := range problems {
		texts[i] = p.String()
	}
	state := decode(annotations)
	d := Decision{State: state, Waiting: true, Status: corev1.ConditionFalse, Reason: "InvalidAnnotation",
		Message: "The rollout does not go on: " + strings.Join(texts, "; ")}
	d.announce(corev1.EventTypeWarning)
	return d
}

func decode(annotations map[string]string) (s State) {
	if json.Unmarshal([]byte(annotations[kube.RolloutState]), &s) != nil {
		return State{} // a user has edited it: the rollout begins anew
	}
	s.Wave = max(0, s.Wave)
	return s
}

// Decide takes the rollout as far as it may go now.
func (s *Spec) Decide(in Seen) Decision {
	d := Decision{State: decode(in.Annotations)}
	d.begin(in)
	st := &d.State
	last := len(s.Waves)
	st.Wave = min(max(1, st.Wave), last)
	allowed, failed := -1, in.Progress[last-1].Failed
	if s.maxFailures != nil {
		allowed = s.maxFailures.of(in.Total)
	}
	if st.Stopped != s.failures {
		st.Stopped = "" // the limit has changed
	}
	switch {
	case st.Done:
		d.Open = last
		d.say(corev1.ConditionTrue, "Complete", fmt.Sprintf("Revision %s is rolled out; all %d waves were healthy.", st.Revision, last))
	case st.Back:
		d.Open = last
		d.back(s, in)
	case s.paused:
		d.Waiting = true
		d.say(corev1.ConditionUnknown, "Paused", fmt.Sprintf("The rollout of revision %s is paused in wave %d of %d. To go on: remove the annotation %s, or petrel rollout resume.",
			st.Revision, st.Wave, last, kube.RolloutPaused))
	case st.Stopped != "" || allowed >= 0 && failed > allowed:
		d.stop(s, failed, allowed)
	default:
		d.advance(s, in, max(0, allowed))
	}
	return d
}

// begin starts the rollout of another revision.
func (d *Decision) begin(in Seen) {
	before := d.State
	if before.Revision == in.Revision {
		return
	}
	next := State{Revision: in.Revision, Wave: 1}
	switch {
	case before.Revision == "" && in.Previous == "": // the first one: nothing is replaced
		next.Done = true
	case before.Revision == "":
		next.From = in.Previous
	case before.Done:
		next.From = before.Revision
	case before.From == in.Revision && in.Revision != "":
		next.Back = true
	default:
		next.From = before.From
	}
	d.State = next
	switch {
	case next.Back:
		d.event(corev1.EventTypeNormal, "RolloutGoesBack", fmt.Sprintf("Going back from revision %s to %s, without waves", before.Revision, next.Revision))
	case !next.Done:
		d.event(corev1.EventTypeNormal, "RolloutStarted", fmt.Sprintf("Rollout of revision %s has started with wave 1", next.Revision))
	}
}

// back finishes a way back when all is healthy.
func (d *Decision) back(s *Spec, in Seen) {
	last := in.Progress[len(s.Waves)-1]
	if last.Healthy >= last.Size {
		d.State.Done, d.State.Back = true, false
		d.say(corev1.ConditionTrue, "Complete", fmt.Sprintf("Revision %s is rolled out again.", d.State.Revision))
		d.announce(corev1.EventTypeNormal)
		return
	}
	d.say(corev1.ConditionTrue, "GoingBack", fmt.Sprintf("Going back to revision %s without waves: %d of %d are healthy.", d.State.Revision, last.Healthy, last.Size))
}

// stop holds the rollout for good: until another template, another limit, or the way back.
func (d *Decision) stop(s *Spec, failed, allowed int) {
	st := &d.State
	first := st.Stopped == ""
	st.Stopped, d.Waiting, st.Healthy = s.failures, true, ""
	text := fmt.Sprintf("The rollout of revision %s is stopped in wave %d of %d: more than %d updated pods have failed", st.Revision, st.Wave, len(s.Waves), allowed)
	if s.rollBack && st.From != "" {
		d.RollBack = st.From
		d.say(corev1.ConditionFalse, "RollingBack", text+fmt.Sprintf(" (%d); going back to revision %s.", failed, st.From))
	} else {
		d.say(corev1.ConditionFalse, "TooManyFailures", text+fmt.Sprintf(". To go on: petrel rollout undo, another template, or another value of %s.", kube.RolloutMaxFailures))
	}
	if first {
		d.announce(corev1.EventTypeWarning)
	}
}

// advance opens waves as far as they are healthy, soaked and approved.
func (d *Decision) advance(s *Spec, in Seen, tolerated int) {
	st, last := &d.State, len(s.Waves)
	for {
		d.Open = st.Wave
		w, p := s.Waves[st.Wave-1], in.Progress[st.Wave-1]
		where := fmt.Sprintf("Revision %s, wave %d of %d (%s)", st.Revision, st.Wave, last, w.text)
		switch {
		case w.Selects() && p.Members == 0:
			d.hold("WaveIsEmpty", where+fmt.Sprintf(": no node that takes the pod matches the selector. To go on: label nodes, or correct %s.", kube.RolloutWaves))
			return
		case p.Members > 0 && p.Reachable == 0:
			d.hold("WaveIsDark", where+fmt.Sprintf(": none of its %d nodes is in reach. It goes on when one is back.", p.Members))
			return
		case p.Healthy+min(p.Failed, tolerated) < p.Size:
			st.Healthy = ""
			d.say(corev1.ConditionTrue, "WaveProgressing", where+fmt.Sprintf(": %d of %d are updated, %d healthy, %d failed.", p.Updated, p.Size, p.Healthy, p.Failed))
			return
		}
		since, err := time.Parse(time.RFC3339, st.Healthy)
		if err != nil || since.After(in.Now) { // a clock that has jumped must not hold it for long
			since = in.Now.Truncate(time.Second)
			st.Healthy = since.UTC().Format(time.RFC3339)
		}
		if wait := since.Add(s.soak).Sub(in.Now); wait > 0 {
			d.After, d.Waiting = wait, true
			d.say(corev1.ConditionTrue, "WaveSoaking", where+fmt.Sprintf(" is healthy and soaks until %s.", since.Add(s.soak).UTC().Format(time.RFC3339)))
			return
		}
		if st.Wave == last {
			st.Done, st.Healthy = true, ""
			d.say(corev1.ConditionTrue, "Complete", fmt.Sprintf("Revision %s is rolled out; all %d waves were healthy.", st.Revision, last))
			d.announce(corev1.EventTypeNormal)
			return
		}
		if next := st.Wave + 1; s.approval && (s.approved.revision != st.Revision || s.approved.wave < next) {
			d.hold("WaitingForApproval", where+fmt.Sprintf(" is healthy; wave %d waits for approval. To approve: petrel rollout approve, or set %s=%s/%d.",
				next, kube.RolloutApproved, st.Revision, next))
			return
		}
		st.Wave, st.Healthy = st.Wave+1, ""
		d.event(corev1.EventTypeNormal, "RolloutWave", fmt.Sprintf("Rollout of revision %s goes on with wave %d of %d (%s)", st.Revision, st.Wave, last, s.Waves[st.Wave-1].text))
	}
}

// hold waits for a user or a node.
func (d *Decision) hold(reason, message string) {
	d.Waiting = true
	d.say(corev1.ConditionUnknown, reason, message)
	d.announce(corev1.EventTypeNormal)
}

func (d *Decision) say(status corev1.ConditionStatus, reason, message string) {
	d.Status, d.Reason, d.Message = status, reason, message
}

// announce reports the condition as an Event too.
func (d *Decision) announce(kind string) { d.event(kind, "Rollout"+d.Reason, d.Message) }

func (d *Decision) event(kind, reason, message string) {
	d.Events = append(d.Events, Event{kind, reason, message})
}

// Limit returns how many of replicas may be updated: those of the open waves of a Deployment.
func (s *Spec) Limit(open, replicas int) int {
	if open == 0 {
		return 0
	}
	return share(s.Waves[open-1].percent, replicas)
}
