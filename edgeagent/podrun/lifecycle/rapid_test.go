package lifecycle

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/kube"
)

// TestInvariants lets anything happen to any pod, in any order, and checks what must hold always.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"x", "y"}
		var args []string
		args = append(args, "restart="+rapid.SampledFrom([]string{"Always", "OnFailure", "Never"}).Draw(t, "restart"))
		if rapid.Bool().Draw(t, "init") {
			args, names = append(args, "init=a"), append(names, "a")
		}
		if rapid.Bool().Draw(t, "sidecar") {
			args, names = append(args, "sidecar=s"), append(names, "s")
		}
		args = append(args, "containers=x,y", "cpu=x:100m", "cpu=y:100m")
		if rapid.Bool().Draw(t, "resize policy") {
			args = append(args, "restarts=x")
		}
		if policy := rapid.SampledFrom([]string{"", "Always", "OnFailure", "Never"}).Draw(t, "policy"); policy != "" {
			args = append(args, "policy=y:"+policy)
			if action := rapid.SampledFrom([]string{"", "Restart", "RestartAllContainers"}).Draw(t, "action"); action != "" {
				args = append(args, "rule=y:"+action+":In:1")
			}
		}
		w := newWorld(rapidPod(args))
		check := newChecker(w)
		pick := func() string { return rapid.SampledFrom(names).Draw(t, "container") }
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				w.settle()
				if why := check.settled(); why != "" {
					t.Fatalf("%s\n%s\n%s", why, strings.Join(w.trace, ", "), w.summary())
				}
			},
			"exit": func(t *rapid.T) {
				if c := w.running(pick()); c != nil {
					check.reasons[c.Name]++
					code := rapid.SampledFrom([]int{0, 1, 137}).Draw(t, "code")
					if c.Name == "y" && code == 1 && mayRestartAll(&w.pod.Spec) {
						check.all(names)
					}
					w.exit(c.ID, code)
				}
			},
			"advance": func(t *rapid.T) {
				w.pass(time.Duration(rapid.IntRange(1, 900).Draw(t, "seconds")) * time.Second)
			},
			"agent restart": func(*rapid.T) {
				if len(w.o.Again) > 0 && mayRestartAll(&w.pod.Spec) { // whose end it was is forgotten with the rest
					check.all(names)
				}
				w.forget()
				check.state = Wanted
			},
			"reboot": func(*rapid.T) { w.reboot(); check.all(names); check.state = Wanted },
			"pull": func(t *rapid.T) {
				w.pullFails["app:1"] = rapid.SampledFrom([]string{"", "ErrImagePull"}).Draw(t, "why")
			},
			"start": func(t *rapid.T) {
				w.startFails[pick()] = rapid.SampledFrom([]string{"", "RunContainerError"}).Draw(t, "why")
			},
			"probe": func(t *rapid.T) { w.unready[pick()] = rapid.Bool().Draw(t, "unready") },
			"sick": func(*rapid.T) {
				if c := w.running(pick()); c != nil {
					check.reasons[c.Name]++
					if mayRestartAll(&w.pod.Spec) { // by the code with which it then ends
						check.all(names)
					}
					w.o.Probes[c.ID] = Probe{Started: true, Ready: true, Failed: "Liveness"}
				}
			},
			"resize": func(t *rapid.T) {
				if w.pod.Spec.RestartPolicy != corev1.RestartPolicyNever || pick() == "y" { // x may want a restart, which the API refuses with Never
					w.pod.Generation++
					w.o.Resize.Generation = w.pod.Generation
					name := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "resized")
					if len(kube.ContainerNamed(w.pod, name).ResizePolicy) > 0 {
						check.reasons[name]++
					}
					setCPU(kube.ContainerNamed(w.pod, name), rapid.SampledFrom([]string{"50m", "100m", "300m"}).Draw(t, "cpu"))
				}
			},
			"image": func(t *rapid.T) {
				name := pick()
				check.reasons[name]++
				kube.ContainerNamed(w.pod, name).Image = rapid.SampledFrom([]string{"app:1", "app:2"}).Draw(t, "image")
			},
			"obey": func(t *rapid.T) {
				w.stopCode = rapid.SampledFrom([]int{0, 1, 143}).Draw(t, "code")
			},
			"resize fails": func(t *rapid.T) {
				w.resizeFail = rapid.SampledFrom([]string{"", "", "busy"}).Draw(t, "why")
			},
			"delete": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "whether") == 0 && w.pod.DeletionTimestamp == nil {
					w.pod.DeletionTimestamp = &metav1.Time{Time: w.now}
				}
			},
			"drop": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "whether") == 0 {
					w.gone = true
				}
			},
		})
	})
}

func rapidPod(args []string) *corev1.Pod { return scriptPod(&testing.T{}, args) }

// checker holds what has been seen, to compare with what comes.
type checker struct {
	w        *world
	state    State
	ended    corev1.PodPhase
	restarts map[string]int32
	reasons  map[string]int32 // by container: what has happened that may start it again, each once
}

func newChecker(w *world) *checker {
	return &checker{w: w, restarts: map[string]int32{}, reasons: map[string]int32{}}
}

// all notes what may start every container again.
func (c *checker) all(names []string) {
	for _, name := range names {
		c.reasons[name]++
	}
}

// settled says what is wrong with a world in which nothing is left to do.
func (c *checker) settled() string {
	w, st := c.w, &c.w.o.Last
	if w.state < c.state {
		return "the state went back from " + c.state.String()
	}
	c.state = w.state
	if c.ended != "" && st.Phase != c.ended {
		return "the pod had ended as " + string(c.ended)
	}
	if Ended(st.Phase) {
		c.ended = st.Phase
	}
	for _, cs := range slices.Concat(st.InitContainerStatuses, st.ContainerStatuses) {
		if cs.RestartCount < c.restarts[cs.Name] && w.state != Removed {
			return "restarts of " + cs.Name + " went back"
		}
		c.restarts[cs.Name] = cs.RestartCount
		if cs.RestartCount > c.reasons[cs.Name] {
			return fmt.Sprintf("%s was restarted %d times for %d reasons", cs.Name, cs.RestartCount, c.reasons[cs.Name])
		}
		n := 0
		for _, s := range []bool{cs.State.Running != nil, cs.State.Waiting != nil, cs.State.Terminated != nil} {
			if s {
				n++
			}
		}
		if n != 1 {
			return cs.Name + " has not exactly one state"
		}
		if cs.Ready && cs.State.Running == nil && cs.Name != "a" {
			return cs.Name + " is ready but does not run"
		}
	}
	running, differs := map[string]int{}, false
	for _, rec := range w.o.Containers {
		if rec.State == cruntime.Running {
			running[rec.Name]++
			have, _ := podspec.ParseShare(rec.Share)
			differs = differs || len(have.Differs(podspec.ShareOf(w.pod, kube.ContainerNamed(w.pod, rec.Name)))) > 0
			if w.o.Sandbox != nil && rec.SandboxID != w.o.Sandbox.ID {
				return rec.Name + " runs in an old sandbox"
			}
		}
	}
	for name, n := range running {
		if n > 1 {
			return name + " runs twice"
		}
	}
	if b := w.o.Resize.Bounds; b.Text == podspec.BoundsText(w.pod) && !b.Settled {
		differs = true
	}
	if c := kube.FindCondition(st.Conditions, corev1.PodResizeInProgress); differs != (c != nil) && !Ended(st.Phase) {
		return "a container or the pod has other resources than are allocated, and no condition says so, or the other way round"
	}
	if differs && w.resizeFail == "" && w.o.Resize.Fail.Retry.IsZero() && len(w.o.Stops) == 0 {
		return "a resize is not done, and nothing hinders it"
	}
	deleting := w.gone || w.pod.DeletionTimestamp != nil
	if (deleting || Ended(st.Phase)) && len(running) > 0 {
		return "something still runs in a pod that is over"
	}
	if deleting && w.state != Removed {
		return "a deleted pod is not removed"
	}
	if running["a"] > 0 && (running["x"] > 0 || running["y"] > 0) {
		return "an init container runs beside the others"
	}
	ready := kube.IsConditionTrue(st.Conditions, corev1.PodReady)
	if ready && (running["x"] != 1 || running["y"] != 1) {
		return "the pod is ready, but not all of it runs"
	}
	if ready != (kube.IsConditionTrue(st.Conditions, corev1.ContainersReady)) {
		return "Ready and ContainersReady differ without a gate"
	}
	in := Target{Pod: w.pod, Gone: w.gone}
	if a, b := Step(in, w.o, w.now), Step(in, w.o, w.now); !reflect.DeepEqual(a, b) {
		return "one step, two outcomes"
	}
	if again := Step(in, w.o, w.now); !reflect.DeepEqual(again.Status, *st) {
		return "the status of a world at rest changes"
	}
	return ""
}
