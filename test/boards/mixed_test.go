package boards

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/test/harness"
)

// podImage is an image with testdata/pod, built for an architecture.
func podImage(t *testing.T, arch string) v1.Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pod")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "./testdata/pod")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	img := runtimetest.WithEntry(t, empty.Image, tar.Header{Name: "pod", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	if img, err = mutate.Config(img, v1.Config{Entrypoint: []string{"/pod"}}); err != nil {
		t.Fatal(err)
	}
	return runtimetest.Built(t, img, arch)
}

// deployment is a Deployment of an image. Its pods stay on a node that is out of reach, as those of a board have to.
func deployment(name, image string, replicas int, podFields, annotations string) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: %[1]s}, spec: {replicas: %[3]d, progressDeadlineSeconds: 3600,
  selector: {matchLabels: {app: %[1]s}}, template: {metadata: {labels: {app: %[1]s}, annotations: {%[5]s}}, spec: {
    terminationGracePeriodSeconds: 1, tolerations: [{operator: Exists, effect: NoExecute}], %[4]s
    containers: [{name: main, image: "%[2]s"}]}}}}`, name, image, replicas, podFields, annotations)
}

// fleet is the hub with its two nodes, "here" and "board".
type fleet struct {
	*harness.Hub
	t *testing.T
}

// nodesOf maps the pods of an app, but those that are leaving, to their nodes.
func (f fleet) nodesOf(app string) map[string]string {
	f.t.Helper()
	out := map[string]string{}
	list := f.Kubectl("get", "pods", "-l", "app="+app, "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.metadata.deletionTimestamp}{"\n"}{end}`)
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) == 2 {
			out[f[0]] = f[1]
		}
	}
	return out
}

func (f fleet) available(app string, replicas int) {
	f.t.Helper()
	f.Eventually(hope, fmt.Sprintf("%d of %s are available", replicas, app), func() error {
		if got, err := f.TryKubectl("get", "deployment", app, "-o", "jsonpath={.status.availableReplicas}"); err != nil || got != fmt.Sprint(replicas) {
			return fmt.Errorf("%q, %v, pods %v", got, err, f.nodesOf(app))
		}
		return nil
	})
}

// everyPod waits until each pod of an app has said, through the hub, that it was built for its node's processor, and returns how many
// pods a node has.
func (f fleet) everyPod(app string, arch map[string]string) map[string]int {
	f.t.Helper()
	count := map[string]int{}
	for pod, node := range f.nodesOf(app) {
		count[node]++
		f.Eventually(hope, pod+" says what it was built for", func() error {
			if got, err := f.TryKubectl("logs", pod); err != nil || got != "built for "+arch[node]+"\n" {
				return fmt.Errorf("on %s: %q, %v", node, got, err)
			}
			return nil
		})
	}
	return count
}

// settle waits until the pods of a Deployment whose image exists for only one node's processor, and which do not say so, are on that node.
// The first ones may come to the other node: they are replaced, with the reason in an Event.
func (f fleet) settle(app, node string) {
	f.t.Helper()
	f.Eventually(hope, fmt.Sprintf("the pods of %s are on %s", app, node), func() error {
		for _, on := range f.nodesOf(app) {
			if on != node {
				return fmt.Errorf("%v", f.nodesOf(app))
			}
		}
		return nil
	})
}

// TestMixedFleet has a hub and a node of this machine's architecture, and a board with another one that joins over MQTT. Deployments
// land where their images exist and run there. The board's power is cut with ten pods on it; with the cable pulled it starts them
// again from its own disk; and when the cable is back the hub has the same pods.
func TestMixedFleet(t *testing.T) {
	ms := harness.LAN(t, "mixed", 3)
	f := fleet{harness.StartHub(t, ms[0]), t}
	registry, push := harness.StartRegistry(t, ms[0])
	b := newBoard(t, ms[2])
	b.powerOn("board.checks=node board.registry=" + registry + " board.join=" + f.Token())
	f.Join(ms[1], "here", "--plain-http-registry", registry)
	f.boardReady("True")
	arch := map[string]string{}
	for _, node := range []string{"here", "board"} {
		arch[node] = f.Kubectl("get", "node", node, "-o", "jsonpath={.status.nodeInfo.architecture}")
	}
	if arch["here"] != runtime.GOARCH || arch["board"] == "" || arch["board"] == arch["here"] {
		t.Fatalf("architectures %v: not a mixed fleet", arch)
	}
	t.Logf("board: a fleet of %v", arch)

	own, foreign := podImage(t, arch["here"]), podImage(t, arch["board"])
	push("team/both:1", own, foreign)
	push("team/here:1", own)
	push("team/board:1", foreign)
	image := func(name string) string { return registry + "/team/" + name + ":1" }
	const apart = `affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: both}}}]}},`
	f.Apply(deployment("both", image("both"), 2, apart, ""))
	f.Apply(deployment("named", image("board"), 2, "", fmt.Sprintf("petrel.dev/architectures: %q", arch["board"])))
	f.Apply(deployment("board", image("board"), 2, "", ""))
	f.Apply(deployment("here", image("here"), 2, "", ""))
	f.settle("board", "board")
	f.settle("here", "here")
	for app, want := range map[string]string{"both": "map[board:1 here:1]", "named": "map[board:2]", "board": "map[board:2]", "here": "map[here:2]"} {
		f.available(app, 2)
		if got := fmt.Sprint(f.everyPod(app, arch)); got != want {
			t.Errorf("pods of %s are on %s; want %s", app, got, want)
		}
	}
	placed := f.Kubectl("get", "events", "--field-selector=reason=Scheduled", "-o", `jsonpath={range .items[*]}{.involvedObject.name} {.message}{"\n"}{end}`)
	for line := range strings.Lines(placed) {
		if strings.HasPrefix(line, "named-") && !strings.HasSuffix(line, " to board\n") {
			t.Errorf("a pod whose annotation names the architecture was placed elsewhere: %s", line)
		}
	}
	moved := strings.Count(f.Kubectl("get", "events", "--field-selector=reason=ImageNotForArchitecture", "-o", `jsonpath={range .items[*]}{.involvedObject.name}{"\n"}{end}`), "\n")
	t.Logf("board: two Deployments with an image for both, or named in an annotation, landed at once; of two with an image for one, %d pods were first placed on the other node, and replaced", moved)

	f.Kubectl("delete", "deployment", "both", "named", "board", "here")
	f.Apply(deployment("ten", image("both"), 10, fmt.Sprintf("nodeSelector: {kubernetes.io/arch: %s},", arch["board"]), ""))
	f.available("ten", 10)
	t.Logf("board: %s", b.lean(10))
	before := f.Lives("app=ten")

	b.powerOff()
	ms[2].Unplug(t)
	b.powerOn("board.checks=node board.registry=" + registry)
	f.boardReady("Unknown")
	b.runs(10)
	if got := f.Kubectl("get", "node", "board", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`); got != "Unknown" {
		t.Fatalf("the hub takes the board for %s: it is reached, and the pods may have come from there", got)
	}
	t.Logf("board: ten pods are back after a power cut, without the hub")

	ms[2].Plug(t)
	f.boardReady("True")
	f.available("ten", 10)
	b.runs(10)
	f.Eventually(hope, "the hub has the same pods, started again", func() error {
		after := f.Lives("app=ten")
		if a, b := harness.PodUIDs(before), harness.PodUIDs(after); fmt.Sprint(a) != fmt.Sprint(b) {
			return fmt.Errorf("before:\n%safter:\n%s", before, after)
		}
		for line := range strings.Lines(after) {
			if strings.Contains(before, line) {
				return fmt.Errorf("the hub has a pod as it was before the power cut: %s", line)
			}
		}
		return nil
	})
	if got := fmt.Sprint(f.everyPod("ten", arch)); got != "map[board:10]" {
		t.Errorf("pods are on %s", got)
	}
	t.Log("board: the hub has the same ten pods")
}

// boardReady waits until the board's node has this status of its Ready condition.
func (f fleet) boardReady(status string) {
	f.t.Helper()
	f.Eventually(hope, "the Ready condition of the board is "+status, func() error {
		got, err := f.TryKubectl("get", "node", "board", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && got != status {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}
