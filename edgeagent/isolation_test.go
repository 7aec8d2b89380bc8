package edgeagent

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// limitOf reads a limit of a cgroup in whichever version there is; "": its controller is not here.
func limitOf(cgroup, controller, v1, v2 string) string {
	b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", cgroup, v2))
	if err != nil {
		b, _ = os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, cgroup, v1))
	}
	return strings.TrimSpace(string(b))
}

// TestRoomForTheSystem checks that what all pods together may take leaves room for the agent and the system, and one pod has
// only so many processes. A pod that shares its processes goes on without the agent, and leaves nothing behind.
func TestRoomForTheSystem(t *testing.T) {
	m := newMachine(t)
	p := pod("shared", corev1.Container{Name: "main", Command: []string{"/bin/sleep", "1000"}})
	p.Spec.ShareProcessNamespace = ptr(true)
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Image: testImage, Command: []string{"/bin/sh", "-c", "for i in $(seq 5000); do echo line $i first $(ps | grep -c [p]od-init); sleep 0.1; done"}})
	m.want(p)
	m.boot()
	st := m.await("uid-shared", "ready", ready)
	m.awaitLog("uid-shared", "other", "line 5 first 1\n")
	if text := limitOf("petrel", "memory", "memory.limit_in_bytes", "memory.max"); text != "" {
		info, err := os.ReadFile("/proc/meminfo")
		if err != nil {
			t.Fatal(err)
		}
		total, _ := strconv.ParseInt(strings.Fields(string(info))[1], 10, 64)
		if got, err := strconv.ParseInt(text, 10, 64); err != nil || got != total<<10-100<<20 {
			t.Errorf("all pods may have %s bytes of %d KiB, %v", text, total, err)
		}
	}
	if text := limitOf("petrel", "pids", "pids.max", "pids.max"); text == "max" {
		t.Error("all pods together may have every process ID")
	}
	if text := limitOf("petrel/poduid-shared", "pids", "pids.max", "pids.max"); text != "" && text != "4096" {
		t.Errorf("a pod may have %s processes", text)
	}
	m.kill()
	m.boot()
	m.awaitLog("uid-shared", "other", "line 40 first 1\n")
	for i, c := range m.await("uid-shared", "still ready", ready).ContainerStatuses {
		if c.RestartCount != 0 || c.ContainerID != st.ContainerStatuses[i].ContainerID {
			t.Errorf("%s was not left alone: %+v", c.Name, c)
		}
	}
	m.kill()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, ptr(int64(1))
	m.want(p)
	m.boot()
	m.awaitGone("uid-shared")
	m.nothingLeft("uid-shared")
}
