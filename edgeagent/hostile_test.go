package edgeagent

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
)

// TestOwnFilesKillNobody checks that whatever a container does to the files that the agent makes for it, the agent lives,
// starts again and knows the pod's last words; and nothing of the disk is gone.
func TestOwnFilesKillNobody(t *testing.T) {
	m := newMachine(t)
	evil := pod("evil", sh("main", "truncate -s 1099511627776 /etc/hostname /etc/hosts /etc/resolv.conf /dev/termination-log; "+
		"dd if=/dev/zero of=/dev/termination-log bs=1M count=64 conv=notrunc; exit 3"))
	good := pod("good", sh("main", "echo host $HOSTNAME; cat /etc/hostname; sleep 1000"))
	readOnly := pod("ro", sh("main", "for f in hosts hostname resolv.conf; do (echo x >> /etc/$f) 2> /dev/null || echo $f is read-only; done; echo last > /dev/termination-log && echo said; sleep 1000"))
	readOnly.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr(true)}
	m.want(evil, good, readOnly)
	m.boot()
	m.await("uid-good", "ready", ready)
	crashed := func(st corev1.PodStatus) bool {
		return len(st.ContainerStatuses) == 1 && st.ContainerStatuses[0].RestartCount > 0 && st.ContainerStatuses[0].LastTerminationState.Terminated != nil
	}
	st := m.await("uid-evil", "crashed", crashed)
	if got := len(st.ContainerStatuses[0].LastTerminationState.Terminated.Message); got > 4096 {
		t.Errorf("a termination message of %d bytes", got)
	}
	m.awaitLog("uid-good", "main", "host good\ngood\n")
	m.awaitLog("uid-ro", "main", "hosts is read-only\nhostname is read-only\nresolv.conf is read-only\nsaid\n")
	if b := vmHWM(t, m.cmd.Process.Pid); b > 400<<10 {
		t.Errorf("the agent has needed %d KiB", b)
	}
	m.kill()
	m.statuses = map[string]corev1.PodStatus{}
	m.boot()
	m.await("uid-good", "ready again", ready)
	m.await("uid-evil", "crashed", crashed)
	m.term()
}

// vmHWM is the most memory that a process has had, in KiB.
func vmHWM(t *testing.T, pid int) (kib int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "VmHWM:") {
			if _, err := fmt.Sscan(strings.Fields(line)[1], &kib); err != nil {
				t.Fatal(err)
			}
		}
	}
	return kib
}

// TestNobodySeesNothing checks that another user of the machine finds nothing of the agent and its pods, neither by walking
// there nor at the paths that the kernel's list of mounts tells everybody; and pods of other users work.
func TestNobodySeesNothing(t *testing.T) {
	m := newMachine(t)
	for _, dir := range []string{m.data, m.run} { // as a person or an older version made them
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := pod("secret", sh("main", "cat /sec/password; echo mine > /scratch/file; chmod 4755 /scratch/file; cat /etc/hosts > /scratch/copy && echo wrote; sleep 1000"))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(4321)), FSGroup: ptr(int64(4321))}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "sec", MountPath: "/sec"}, {Name: "scratch", MountPath: "/scratch"}}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "sec", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec"}}},
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	m.want(p, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "sec", Namespace: "default", UID: "sec"}, Data: map[string][]byte{"password": []byte("hunter2\n")}})
	m.boot()
	m.await("uid-secret", "ready", ready)
	m.awaitLog("uid-secret", "main", "hunter2\nwrote\n")
	paths := everything(t, m)
	for _, must := range []string{"password", "/.volumes/scratch/file", "config.json"} { // the list holds what matters
		if !strings.Contains(strings.Join(paths, "\n"), must) {
			t.Errorf("nothing called %s among %d paths", must, len(paths))
		}
	}
	walk := exec.Command("/proc/self/exe")
	walk.Env, walk.Stdin = []string{"PETREL_TEST_WALK=1"}, strings.NewReader(strings.Join(paths, "\n"))
	walk.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := walk.CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
	if n := strings.Count(m.log(), "directory was open to other users"); n < 2 {
		t.Errorf("%d lines of the log tell that a directory was open, want one for each:\n%s", n, m.log())
	}
	m.term()
}

// everything is what there is in the agent's two trees, and where something is mounted in them.
func everything(t *testing.T, m *machine) []string {
	t.Helper()
	var paths []string
	for _, root := range []string{m.data, m.run} {
		_ = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
			if err == nil && p != root && len(paths) < 20000 {
				paths = append(paths, p)
			}
			return nil // what is gone meanwhile
		})
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(mounts) {
		if f := strings.Fields(string(line)); len(f) > 4 && (strings.HasPrefix(f[4], m.data+"/") || strings.HasPrefix(f[4], m.run+"/")) {
			paths = append(paths, f[4])
		}
	}
	return paths
}

// walkAsNobody prints those of the paths on its input that it can look at at all.
func walkAsNobody() int {
	var in bytes.Buffer
	if _, err := in.ReadFrom(os.Stdin); err != nil {
		fmt.Println(err)
		return 1
	}
	for path := range strings.Lines(in.String()) {
		path = strings.TrimSuffix(path, "\n")
		if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			unix.Close(fd)
			fmt.Println("opened", path)
		} else if _, err := os.Lstat(path); err == nil {
			fmt.Println("saw", path)
		}
	}
	return 0
}

// TestStuckPodEndsAgent checks that an agent whose work on a pod hangs in the kernel ends when it is stopped.
func TestStuckPodEndsAgent(t *testing.T) {
	m := newMachine(t)
	good := pod("good", sh("main", "sleep 1000"))
	m.want(good)
	m.boot()
	m.await("uid-good", "ready", ready)
	// Its shim does not answer any more, so that nobody learns how the container is.
	shims, _ := filepath.Glob(filepath.Join(m.run, "containerd", "state", "io.containerd.runtime.v2.task", "petrel", "*"))
	if len(shims) != 1 {
		t.Fatalf("bundles: %v", shims)
	}
	stopped := 0
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		if cwd, err := os.Readlink(p + "/cwd"); err == nil && cwd == shims[0] {
			var pid int
			if _, err := fmt.Sscan(filepath.Base(p), &pid); err == nil && syscall.Kill(pid, syscall.SIGSTOP) == nil {
				stopped++
			}
		}
	}
	if stopped == 0 {
		t.Fatal("no shim found")
	}
	done := make(chan struct{})
	go func() {
		m.term()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(runtimetest.Hope):
		t.Fatalf("the agent does not end:\n%s", m.log())
	}
}
