package podspec

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/desired"
)

// volumes are a pod's volumes without a disk: "data", and "cfg", which is read-only. Files are by path.
type volumes map[string]string

func (volumes) MountSource(_ *corev1.Pod, m corev1.VolumeMount) (string, error) {
	if m.Name != "data" && m.Name != "cfg" {
		return "", fmt.Errorf("the pod has no volume %q", m.Name)
	}
	return strings.TrimSuffix("/node/"+m.Name+"/"+m.SubPath, "/"), nil
}
func (volumes) ReadOnly(_ *corev1.Pod, volume string) bool { return volume == "cfg" }
func (v volumes) ReadFile(root, path string, _ int) ([]byte, error) {
	text, ok := v[root+"/"+path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

func attempt(c corev1.Container, v volumes) Attempt {
	c.Name = "main"
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{c}}}
	pod.UID, pod.Name, pod.Namespace = "u", "p", "ns"
	return Attempt{Pod: pod, Container: &pod.Spec.Containers[0], Number: 2, Set: &desired.Set{}, Place: Place{SandboxID: "s", Netns: "/ns", IPs: []string{"10.0.0.9"}},
		Volumes: v, LogPath: "/log"}
}

// TestMounts covers what a volumeMount becomes, and the texts of those that cannot be had.
func TestMounts(t *testing.T) {
	both, into, enabled := corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.RecursiveReadOnlyEnabled
	for _, c := range []struct {
		name  string
		mount corev1.VolumeMount
		want  cruntime.Mount
		err   string
	}{
		{"plain", corev1.VolumeMount{Name: "data", MountPath: "/d"}, cruntime.Mount{Source: "/node/data", Target: "/d"}, ""},
		{"read-only by its kind", corev1.VolumeMount{Name: "cfg", MountPath: "/c"}, cruntime.Mount{Source: "/node/cfg", Target: "/c", ReadOnly: true}, ""},
		{"not absolute", corev1.VolumeMount{Name: "data", MountPath: "d", ReadOnly: true}, cruntime.Mount{Source: "/node/data", Target: "/d", ReadOnly: true}, ""},
		{"propagated", corev1.VolumeMount{Name: "data", MountPath: "/d", MountPropagation: &both}, cruntime.Mount{Source: "/node/data", Target: "/d", Propagation: "rshared"}, ""},
		{"propagated in", corev1.VolumeMount{Name: "data", MountPath: "/d", MountPropagation: &into}, cruntime.Mount{Source: "/node/data", Target: "/d", Propagation: "rslave"}, ""},
		{"subPathExpr", corev1.VolumeMount{Name: "data", MountPath: "/d", SubPathExpr: "$(A)/x"}, cruntime.Mount{Source: "/node/data/a/x", Target: "/d"}, ""},
		{"subPathExpr without value", corev1.VolumeMount{Name: "data", MountPath: "/d", SubPathExpr: "$(B)"}, cruntime.Mount{}, "missing value for B"},
		{"no volume", corev1.VolumeMount{Name: "nope", MountPath: "/d"}, cruntime.Mount{}, `the pod has no volume "nope"`},
		{"recursive, old kernel", corev1.VolumeMount{Name: "data", MountPath: "/d", ReadOnly: true, RecursiveReadOnly: &enabled}, cruntime.Mount{}, "not supported by the runtime"},
		{"recursive, but writable", corev1.VolumeMount{Name: "data", MountPath: "/d", RecursiveReadOnly: &enabled}, cruntime.Mount{}, "it is not read-only"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := attempt(corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "a"}}, VolumeMounts: []corev1.VolumeMount{c.mount}}, nil)
			spec, _, err := Node{}.Container(a)
			switch {
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("%v, want %q", err, c.err)
			case c.err == "" && (err != nil || !reflect.DeepEqual(spec.Mounts, []cruntime.Mount{c.want})):
				t.Errorf("%+v, %v; want %+v", spec.Mounts, err, c.want)
			}
		})
	}
}

// TestVariableFromFile covers a variable from a file in a volume, with the texts that a user reads when it cannot be had.
func TestVariableFromFile(t *testing.T) {
	yes := true
	files := volumes{"/node/data/env": "A='1'\n", "/node/data/bad": "A=1\n"}
	for _, c := range []struct {
		ref       corev1.FileKeySelector
		want, err string
	}{
		{corev1.FileKeySelector{VolumeName: "data", Path: "env", Key: "A"}, "1", ""},
		{corev1.FileKeySelector{VolumeName: "data", Path: "env", Key: "B"}, "", `environment variable key "B" not found in file "env"`},
		{corev1.FileKeySelector{VolumeName: "data", Path: "env", Key: "B", Optional: &yes}, "", ""},
		{corev1.FileKeySelector{VolumeName: "data", Path: "none", Key: "A"}, "", `file "none" is not in volume "data"; an init container has to write it`},
		{corev1.FileKeySelector{VolumeName: "data", Path: "none", Key: "A", Optional: &yes}, "", ""},
		{corev1.FileKeySelector{VolumeName: "data", Path: "bad", Key: "A"}, "", "couldn't parse env file: bad: line 1: value must be enclosed in single quotes"},
		{corev1.FileKeySelector{VolumeName: "nope", Path: "env", Key: "A"}, "", `the pod has no volume "nope"`},
	} {
		a := attempt(corev1.Container{Env: []corev1.EnvVar{{Name: "V", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &c.ref}}}}, files)
		vars, _, err := Node{}.environment(a)
		if c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err) || vars["V"] != c.want {
			t.Errorf("%+v: %q, %v; want %q, %q", c.ref, vars["V"], err, c.want, c.err)
		}
	}
}

// TestSandboxFiles covers the files that a pod's containers share, and the room that they need.
func TestSandboxFiles(t *testing.T) {
	pod := attempt(corev1.Container{}, nil).Pod
	n := Node{DNS: DNS{Server: "10.43.0.10", Domain: "cluster.local"}, ResolvConf: "search home.\nnameserver 192.0.2.1\noptions rotate\n"}
	pod.Spec.DNSPolicy = corev1.DNSClusterFirst
	spec, files, err := n.Sandbox(pod, Place{IPs: []string{"10.42.0.9"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := files["resolv.conf"], "search ns.svc.cluster.local svc.cluster.local cluster.local home\nnameserver 10.43.0.10\noptions ndots:5\n"; got != want {
		t.Errorf("resolv.conf %q, want %q", got, want)
	}
	if !strings.HasSuffix(files["hosts"], "10.42.0.9\tp\n") || files["hostname"] != "p\n" || spec.Hostname != "p" {
		t.Errorf("hosts %q, hostname %q, %q", files["hosts"], files["hostname"], spec.Hostname)
	}
	if want := int64(len(files["hosts"]) + len(files["hostname"]) + len(files["resolv.conf"])); spec.FilesRoom != want {
		t.Errorf("room for %d bytes, want %d", spec.FilesRoom, want)
	}
	pod.Spec.Hostname, pod.Spec.Subdomain, pod.Spec.SetHostnameAsFQDN = strings.Repeat("h", 60), "sub", new(true)
	if _, _, err := n.Sandbox(pod, Place{}); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "64 characters is the max") {
		t.Errorf("a name that the kernel cannot hold: %v", err)
	}
}
