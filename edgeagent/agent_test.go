package edgeagent

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestPodsRunFromTheCache(t *testing.T) {
	m := newMachine(t)
	m.want(pod("web", sh("main", "echo up; sleep 1000")))
	m.boot()
	st := m.await("uid-web", "ready", ready)
	if st.PodIP == "" || st.HostIP != "192.0.2.10" {
		t.Errorf("addresses: pod %q, host %q", st.PodIP, st.HostIP)
	}
	if st.Phase != corev1.PodRunning {
		t.Errorf("phase %s", st.Phase)
	}
}
