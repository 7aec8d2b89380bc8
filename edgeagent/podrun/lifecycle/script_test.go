package lifecycle

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/kube"
)

var update = flag.Bool("update", false, "write the outputs of testdata/*.txt anew")

// TestTimelines plays testdata/*.txt: a line that begins with ">" is a command, what follows it up to the next is what
// the step then did, and the status in one line. Commands:
//
//	> pod restart=Never init=a sidecar=s containers=x,y grace=5 deadline=60 image=app:2
//	      cpu=x:100m restarts=x                                      of a container that is named before; its resizePolicy
//	      mounts=x:v:data:1                                           of a container that is named before; an image, as volume v
//	      policy=x:OnFailure rule=x:RestartAllContainers:NotIn:0,1    of a container that is named before
//	> step                      step until nothing is left to do
//	> advance 10s               let time pass, then step
//	> clock 24h                 set the clock forward, or back, then step
//	> exit x 1                  a container ends, then step
//	> pull-fails app:1 REASON   pulling fails from now on ("-": no more)
//	> start-fails x REASON      starting fails from now on ("-": no more)
//	> unready x | ready x       the container's probes fail or pass, then step
//	> sick x                    its liveness probe fails for good, then step
//	> deaf x                    it ignores SIGTERM; killed x: it ends at last
//	> agent-restart | reboot    what the agent remembers is lost; all processes too
//	> lose x                    the runtime forgets the container's records
//	> delete [grace] | drop     deletion is asked for; the pod leaves the set
//	> evict limit|pressure WHY  it has too much on the disk
//	> discard                   the disk is short: what has ended goes
//	> image x app:2             the container's image is changed
//	> resize x 200m             its CPU request and limit are changed, and allocated; pending REASON: they are not ("-": no more)
//	> resize-fails REASON       changing the kernel's limits fails from now on ("-": no more)
func TestTimelines(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(b))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(b) {
				t.Errorf("%s (run with -update to accept):\n%s", file, diff(string(b), got))
			}
		})
	}
}

// play runs a script and returns it with its outputs filled in.
func play(t *testing.T, script string) string {
	var out strings.Builder
	var w *world
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			out.WriteString(line)
			continue
		}
		cmd, ok := strings.CutPrefix(line, "> ")
		if !ok {
			continue // an earlier output
		}
		out.WriteString(line)
		f := strings.Fields(cmd)
		if f[0] == "pod" {
			w = newWorld(scriptPod(t, f[1:]))
			continue
		}
		if !command(t, w, f) {
			continue
		}
		w.settle()
		if len(w.trace) > 0 {
			fmt.Fprintf(&out, "  %s\n", strings.Join(w.trace, ", "))
		}
		fmt.Fprintf(&out, "  %s\n", w.summary())
	}
	return out.String()
}

// command changes the world; true: step then.
func command(t *testing.T, w *world, f []string) bool {
	t.Helper()
	off := func(s string) string {
		if s == "-" {
			return ""
		}
		return s
	}
	switch f[0] {
	case "step":
	case "advance":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			t.Fatal(err)
		}
		w.pass(d)
	case "clock":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(d)
	case "exit", "killed":
		code := 137
		if len(f) > 2 {
			code, _ = strconv.Atoi(f[2])
		}
		c := w.running(f[1])
		if c == nil {
			t.Fatalf("%s does not run", f[1])
		}
		w.exit(c.ID, code)
	case "pull-fails":
		w.pullFails[f[1]] = off(f[2])
		return false
	case "start-fails":
		w.startFails[f[1]] = off(f[2])
		return false
	case "unready", "ready":
		w.unready[f[1]] = f[0] == "unready"
	case "sick":
		w.o.Probes[w.running(f[1]).ID] = Probe{Started: true, Ready: true, Failed: "Liveness"}
	case "deaf":
		w.deaf[f[1]] = true
		return false
	case "agent-restart":
		w.forget()
	case "reboot":
		w.reboot()
	case "lose":
		w.o.Containers = slices.DeleteFunc(w.o.Containers, func(c cruntime.Container) bool { return c.Name == f[1] })
	case "delete":
		now := metav1.NewTime(w.now)
		w.pod.DeletionTimestamp = &now
		if len(f) > 1 {
			g, _ := strconv.ParseInt(f[1], 10, 64)
			w.pod.DeletionGracePeriodSeconds = &g
		}
	case "drop":
		w.gone = true
	case "evict":
		w.o.Evict = Eviction{Message: strings.Join(f[2:], " "), Pressure: f[1] == "pressure"}
	case "discard":
		w.o.Discard = w.now
	case "debug":
		e := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: f[1], Image: "debug:1"}}
		if len(f) > 2 {
			e.TargetContainerName = f[2]
		}
		w.pod.Spec.EphemeralContainers = append(w.pod.Spec.EphemeralContainers, e)
	case "resize":
		w.pod.Generation++
		w.o.Resize.Generation = w.pod.Generation
		setCPU(kube.ContainerNamed(w.pod, f[1]), f[2])
	case "pending":
		w.o.Resize.Pending = Rejection{Reason: off(f[1])}
	case "resize-fails":
		w.resizeFail = off(f[1])
		return false
	case "image":
		kube.ContainerNamed(w.pod, f[1]).Image = f[2]
	default:
		t.Fatalf("no command %q", f[0])
	}
	return true
}

// setCPU gives a container the same request and limit.
func setCPU(c *corev1.Container, amount string) {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(amount)}
	c.Resources = corev1.ResourceRequirements{Requests: list, Limits: list.DeepCopy()}
}

func scriptPod(t *testing.T, args []string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "u"}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways}}
	always := corev1.ContainerRestartPolicyAlways
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		switch k {
		case "restart":
			p.Spec.RestartPolicy = corev1.RestartPolicy(v)
		case "grace", "deadline":
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if k == "grace" {
				p.Spec.TerminationGracePeriodSeconds = &n
			} else {
				p.Spec.ActiveDeadlineSeconds = &n
			}
		case "init", "sidecar", "containers":
			for _, name := range strings.Split(v, ",") {
				c := corev1.Container{Name: name, Image: "app:1"}
				switch k {
				case "containers":
					p.Spec.Containers = append(p.Spec.Containers, c)
				case "sidecar":
					c.RestartPolicy = &always
					fallthrough
				default:
					p.Spec.InitContainers = append(p.Spec.InitContainers, c)
				}
			}
		case "cpu":
			name, amount, _ := strings.Cut(v, ":")
			setCPU(kube.ContainerNamed(p, name), amount)
		case "restarts":
			kube.ContainerNamed(p, v).ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.RestartContainer}}
		case "mounts":
			f := strings.SplitN(v, ":", 3)
			c := kube.ContainerNamed(p, f[0])
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: f[1], MountPath: "/" + f[1]})
			if !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == f[1] }) {
				p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: f[1], VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: f[2]}}})
			}
		case "policy":
			name, policy, _ := strings.Cut(v, ":")
			kube.ContainerNamed(p, name).RestartPolicy = new(corev1.ContainerRestartPolicy(policy))
		case "rule":
			f := strings.Split(v, ":")
			rule := corev1.ContainerRestartRule{Action: corev1.ContainerRestartRuleAction(f[1]),
				ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOperator(f[2])}}
			for _, s := range strings.Split(f[3], ",") {
				n, err := strconv.ParseInt(s, 10, 32)
				if err != nil {
					t.Fatal(err)
				}
				rule.ExitCodes.Values = append(rule.ExitCodes.Values, int32(n))
			}
			c := kube.ContainerNamed(p, f[0])
			c.RestartPolicyRules = append(c.RestartPolicyRules, rule)
		default:
			t.Fatalf("no pod setting %q", k)
		}
	}
	return p
}

// diff shows the first line that differs.
func diff(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(a), len(b)) {
		x, y := "", ""
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, x, y)
		}
	}
	return ""
}
