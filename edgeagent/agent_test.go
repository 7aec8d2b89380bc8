package edgeagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/internal/wire"
)

// logOf reads the newest log of a container as it is on disk.
func (m *machine) logOf(uid, container string) string {
	files, _ := filepath.Glob(filepath.Join(m.data, "agent", "pods", uid, container, "*.log"))
	slices.Sort(files)
	var out strings.Builder
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for line := range strings.Lines(string(b)) {
			if p := strings.SplitN(line, " ", 4); len(p) == 4 {
				out.WriteString(p[3])
			}
		}
	}
	return out.String()
}

func (m *machine) awaitLog(uid, container, text string) {
	m.t.Helper()
	for end := time.Now().Add(runtimetest.Hope); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(m.logOf(uid, container), text) {
			return
		}
	}
	m.t.Fatalf("log of %s/%s never says %q:\n%s\n%s", uid, container, text, m.logOf(uid, container), m.log())
}

// TestPod runs one pod that uses about everything.
func TestPod(t *testing.T) {
	m := newMachine(t)
	images := filepath.Join(m.data, "images", "busybox.tar") // on a stick, say, with a link to it
	if err := errors.Join(os.Rename(images, filepath.Join(m.data, "elsewhere")), os.Symlink("../elsewhere", images)); err != nil {
		t.Fatal(err)
	}
	p := pod("all", corev1.Container{Name: "main", Command: []string{"/bin/sh", "-c"}, Args: []string{
		`echo "env $COLOUR $PREFIX_SIZE $SECRET_KEY $POD $IP $NODE $(ME)"; cat /cfg/greeting; cat /sec/password; cat /var/run/token; ` +
			`cat /pod/labels; hostname; cat /etc/resolv.conf; cat /scratch/from-init; id -u; touch /ro 2>&1; ls /mem; cat /one; sleep 1000`},
		Env: []corev1.EnvVar{
			{Name: "COLOUR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "cfg"}, Key: "colour"}}},
			{Name: "SECRET_KEY", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}, Key: "key"}}},
			{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			{Name: "NODE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}},
			{Name: "ME", Value: "$(POD)-$(COLOUR)"},
		},
		EnvFrom:         []corev1.EnvFromSource{{Prefix: "PREFIX_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cfg"}}}},
		Resources:       corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": quantity("64Mi"), "cpu": quantity("500m")}},
		SecurityContext: &corev1.SecurityContext{RunAsUser: ptr(int64(1234)), ReadOnlyRootFilesystem: ptr(true)},
		VolumeMounts: []corev1.VolumeMount{{Name: "cfg", MountPath: "/cfg"}, {Name: "sec", MountPath: "/sec"}, {Name: "scratch", MountPath: "/scratch"},
			{Name: "mem", MountPath: "/mem"}, {Name: "token", MountPath: "/var/run"}, {Name: "down", MountPath: "/pod"}, {Name: "cfg", MountPath: "/one", SubPath: "greeting"}},
	})
	p.Spec.InitContainers = []corev1.Container{{Name: "prepare", Image: testImage, Command: []string{"/bin/sh", "-c", "echo made-by-init > /scratch/from-init; echo bye > /dev/termination-log"},
		TerminationMessagePath: "/dev/termination-log", VolumeMounts: []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}}}
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(4321))}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "cfg", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cfg"}}}},
		{Name: "sec", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec"}}},
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "mem", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}}}},
		{Name: "down", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cfg", Namespace: "default", UID: "cm"}, Data: map[string]string{"colour": "blue", "greeting": "hello-cfg\n", "SIZE": "xl"}}
	sec := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "sec", Namespace: "default", UID: "sec"}, Data: map[string][]byte{"password": []byte("hunter2\n"), "key": []byte("k3y")}}
	m.want(p, cm, sec, &wire.Token{PodUID: "uid-all", Namespace: "default", Token: "tok-tok\n"})
	m.boot()
	st := m.await("uid-all", "ready", ready)
	m.awaitLog("uid-all", "main", "hello-cfg\nhunter2")
	want := []string{fmt.Sprintf("env blue xl k3y all %s edge-1 all-blue", st.PodIP), "hello-cfg\n", "hunter2\n", "tok-tok\n", `app="all"all`,
		"nameserver 10.43.0.10", "search default.svc.cluster.local svc.cluster.local cluster.local", "ndots:5", "made-by-init\n", "\n1234\n", "Read-only file system"}
	m.awaitLog("uid-all", "main", "Read-only file system\nhello-cfg\n") // the subPath, at the end
	log := m.logOf("uid-all", "main")
	for _, w := range want {
		if !strings.Contains(log, w) {
			t.Errorf("the log lacks %q:\n%s", w, log)
		}
	}
	if st.QOSClass != corev1.PodQOSGuaranteed && st.QOSClass != corev1.PodQOSBurstable {
		t.Errorf("QoS class %s", st.QOSClass)
	}
	init := st.InitContainerStatuses[0]
	if init.State.Terminated == nil || init.State.Terminated.Reason != "Completed" || init.State.Terminated.Message != "bye\n" || !init.Ready {
		t.Errorf("init container: %+v", init)
	}
	main := st.ContainerStatuses[0]
	if !main.Ready || main.Started == nil || !*main.Started || !strings.HasPrefix(main.ContainerID, "containerd://") || !strings.Contains(main.ImageID, "petrel.test/busybox@sha256:") {
		t.Errorf("container: %+v", main)
	}
	// A reader of a mounted ConfigMap sees it change.
	m.kill()
	cm.Data["greeting"] = "hello-again\n"
	m.want(p, cm, sec, &wire.Token{PodUID: "uid-all", Namespace: "default", Token: "tok-tok\n"})
	m.boot()
	file := filepath.Join(m.data, "agent", "pods", "uid-all", ".volumes", "cfg", "greeting")
	for end := time.Now().Add(runtimetest.Hope); ; time.Sleep(20 * time.Millisecond) {
		if b, _ := os.ReadFile(file); string(b) == "hello-again\n" {
			break
		} else if time.Now().After(end) {
			t.Fatalf("the volume still holds %q", b)
		}
	}
	if again := m.await("uid-all", "still ready", ready); again.ContainerStatuses[0].ContainerID != main.ContainerID || again.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the container was not left alone: %+v", again.ContainerStatuses[0])
	}
	// Deleted, it leaves nothing.
	m.kill()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, ptr(int64(1))
	m.want(p, cm, sec)
	m.boot()
	m.awaitGone("uid-all")
	m.nothingLeft("uid-all")
}

func (m *machine) awaitGone(uid string) {
	m.t.Helper()
	for end := time.Now().Add(runtimetest.Hope); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		m.mu.Lock()
		gone := m.gone[uid]
		m.mu.Unlock()
		if gone {
			return
		}
	}
	m.t.Fatalf("pod %s is never gone\n%s", uid, m.log())
}

func (m *machine) nothingLeft(uid string) {
	m.t.Helper()
	for _, d := range []string{filepath.Join(m.data, "agent", "pods", uid), filepath.Join(m.run, "pods", uid)} {
		if _, err := os.Stat(d); err == nil {
			m.t.Errorf("%s is left", d)
		}
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*/petrel/pod" + uid)
	more, _ := filepath.Glob("/sys/fs/cgroup/petrel/pod" + uid)
	if all := append(left, more...); len(all) > 0 {
		m.t.Errorf("cgroups are left: %v", all)
	}
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, uid) {
			m.t.Errorf("a mount is left: %s", line)
		}
	}
}

// TestAgentRestartAdopts kills the agent and containerd as hard as can be; the containers go on, and the next agent
// takes them over without touching them. What they wrote meanwhile is in their logs.
func TestAgentRestartAdopts(t *testing.T) {
	m := newMachine(t)
	shared := pod("s", sh("one", "sleep 1000"), sh("two", "sleep 1000"))
	shared.Spec.ShareProcessNamespace = ptr(true)
	m.want(shared, pod("a", sh("main", "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done")), pod("b", sh("one", "sleep 1000"), sh("two", "sleep 1000")))
	m.boot()
	a := m.await("uid-a", "ready", ready)
	b := m.await("uid-b", "ready", ready)
	s := m.await("uid-s", "ready", ready)
	m.awaitLog("uid-a", "main", "line 10\n")
	m.kill()
	time.Sleep(300 * time.Millisecond)
	m.boot()
	same := func(uid string, old corev1.PodStatus) {
		t.Helper()
		st := m.await(uid, "ready", ready)
		for i, c := range st.ContainerStatuses {
			if c.ContainerID != old.ContainerStatuses[i].ContainerID || c.RestartCount != 0 {
				t.Errorf("%s/%s was not adopted: %+v", uid, c.Name, c)
			}
		}
		if st.PodIP != old.PodIP || !st.StartTime.Equal(old.StartTime) {
			t.Errorf("%s changed: address %s → %s, start %v → %v", uid, old.PodIP, st.PodIP, old.StartTime, st.StartTime)
		}
	}
	same("uid-a", a)
	same("uid-b", b)
	same("uid-s", s)
	m.awaitLog("uid-a", "main", "line 40\n")
	lines := strings.Split(strings.TrimSpace(m.logOf("uid-a", "main")), "\n")
	seen := 0
	for _, l := range lines { // a line may come twice after a kill, none may be missing
		var n int
		if _, err := fmt.Sscanf(l, "line %d", &n); err != nil || n > seen+1 {
			t.Fatalf("after line %d comes %q", seen, l)
		}
		seen = max(seen, n)
	}
	// containerd too: it is started again, the shims go on.
	m.kill()
	pid, err := os.ReadFile(filepath.Join(m.run, "containerd", "pid"))
	if err != nil {
		t.Fatal(err)
	}
	var n int
	fmt.Sscan(string(pid), &n)
	_ = syscall.Kill(n, syscall.SIGKILL)
	m.boot()
	same("uid-a", a)
	same("uid-b", b)
	same("uid-s", s)
	// An ordinary end leaves the pods alone as well, and while the agent runs containerd may die.
	pid, _ = os.ReadFile(filepath.Join(m.run, "containerd", "pid"))
	fmt.Sscan(string(pid), &n)
	_ = syscall.Kill(n, syscall.SIGKILL)
	time.Sleep(2 * time.Second)
	m.term()
	m.boot()
	same("uid-a", a)
	for _, h := range [][]string{m.history["uid-a"], m.history["uid-b"]} {
		for _, line := range h {
			if strings.Contains(line, ":1") {
				t.Errorf("some container was restarted: %v", h)
			}
		}
	}
}

// TestReboot cuts the power with no hub in reach: all pods run again, from what is on disk.
func TestReboot(t *testing.T) {
	m := newMachine(t)
	job := pod("job", sh("main", "echo done > /data/x; exit 0"))
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	withInit := pod("init", sh("main", "sleep 1000"))
	withInit.Spec.InitContainers = []corev1.Container{{Name: "first", Image: testImage, Command: []string{"/bin/echo", "init ran"}, TerminationMessagePath: "/dev/termination-log"}}
	objects := []any{job, withInit}
	for i := range 10 {
		objects = append(objects, pod(fmt.Sprintf("p%d", i), sh("main", "sleep 1000")))
	}
	m.want(objects...)
	m.boot()
	before := map[string]corev1.PodStatus{}
	for i := range 10 {
		uid := fmt.Sprintf("uid-p%d", i)
		before[uid] = m.await(uid, "ready", ready)
	}
	m.await("uid-init", "ready", ready)
	m.await("uid-job", "done", func(st corev1.PodStatus) bool { return st.Phase == corev1.PodSucceeded })
	m.powerOff()
	begin := time.Now()
	m.boot()
	again := func(st corev1.PodStatus) bool { return ready(st) && st.ContainerStatuses[0].RestartCount == 1 }
	for uid, old := range before {
		st := m.await(uid, "ready again", again)
		if st.PodIP != old.PodIP {
			t.Errorf("%s: address %s → %s", uid, old.PodIP, st.PodIP)
		}
		if last := st.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.Reason != "Unknown" || last.ExitCode != 255 {
			t.Errorf("%s: last state %+v", uid, last)
		}
	}
	t.Logf("ten pods are back %v after the agent's start", time.Since(begin).Round(time.Millisecond))
	m.await("uid-init", "ready again", again)
	if n := strings.Count(m.logOf("uid-init", "first"), "init ran"); n != 2 {
		t.Errorf("the init container ran %d times, want 2", n)
	}
	if st := m.await("uid-job", "done", func(st corev1.PodStatus) bool { return true }); st.Phase != corev1.PodSucceeded || st.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the finished pod is %s with %d restarts", st.Phase, st.ContainerStatuses[0].RestartCount)
	}
}

// TestStopPodsOnExit leaves nothing running, and the next start brings the pods back.
func TestStopPodsOnExit(t *testing.T) {
	m := newMachine(t)
	shared := pod("s", sh("main", "exec sleep 1000"))
	shared.Spec.ShareProcessNamespace = ptr(true)
	m.want(shared, pod("a", sh("main", "trap 'exit 0' TERM; while true; do sleep 0.1; done")))
	m.boot("PETREL_TEST_STOP=1")
	m.await("uid-a", "ready", ready)
	m.await("uid-s", "ready", ready)
	m.term()
	if left := m.processes(); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	b, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(b), m.run) || strings.Contains(string(b), m.data) {
		t.Error("mounts are left")
	}
	m.boot()
	m.await("uid-s", "ready again", ready)
	m.await("uid-a", "ready again", func(st corev1.PodStatus) bool { return ready(st) && st.ContainerStatuses[0].RestartCount == 1 })
}

// TestStopPodsOfAnEarlierAgent checks what uninstalling needs: pods that an agent has left running end, with all that they have on
// the machine, while no agent runs, and not while one does.
func TestStopPodsOfAnEarlierAgent(t *testing.T) {
	m := newMachine(t)
	stop := func() error {
		return StopPods(t.Context(), Config{DataDir: m.data, RunDir: m.run, NodeName: "edge-1", PrivateContainerd: true, Log: slog.New(slog.DiscardHandler)})
	}
	if err := stop(); err != nil {
		t.Errorf("where no agent has run: %v", err)
	}
	m.want(pod("a", sh("main", "exec sleep 1000")))
	m.boot()
	m.await("uid-a", "ready", ready)
	if err := stop(); err == nil || !strings.Contains(err.Error(), "another agent uses") {
		t.Errorf("beside an agent: %v", err)
	}
	m.term()
	if left := m.processes(); len(left) == 0 {
		t.Fatal("the pod has not outlived its agent")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if left := m.processes(); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	b, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(b), m.run) || strings.Contains(string(b), m.data) {
		t.Error("mounts are left")
	}
	if _, err := net.InterfaceByName("petrel0"); err == nil {
		t.Error("the bridge is left")
	}
	m.boot()
	m.await("uid-a", "ready again", ready)
}

func ptr[T any](v T) *T { return &v }

// TestStopWhileStarting checks that an agent that is stopped before it is up ends well, as systemd sees it.
func TestStopWhileStarting(t *testing.T) {
	m := newMachine(t)
	a, err := New(Config{DataDir: m.data, RunDir: m.run, NodeName: "edge-1", PrivateContainerd: true, offline: true, StopPodsOnExit: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := a.Run(ctx); err != nil {
		t.Error(err)
	}
}
