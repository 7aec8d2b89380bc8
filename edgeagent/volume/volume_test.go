package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"petrel.dev/petrel/edgeagent/localvolume"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

type objects struct {
	cms     map[string]*corev1.ConfigMap
	secrets map[string]*corev1.Secret
	tokens  map[string]*wire.Token
	claims  map[string]*kube.NodeClaim
	node    *corev1.Node
}

func (o objects) ConfigMap(_, name string) *corev1.ConfigMap { return o.cms[name] }
func (o objects) Secret(_, name string) *corev1.Secret       { return o.secrets[name] }
func (o objects) Token(uid, audience string) *wire.Token     { return o.tokens[uid+"/"+audience] }
func (o objects) Claim(_, name string) *kube.NodeClaim       { return o.claims[name] }
func (o objects) ThisNode() *corev1.Node                     { return o.node }
func cm(data map[string]string) map[string]*corev1.ConfigMap {
	return map[string]*corev1.ConfigMap{"cfg": {Data: data}}
}
func ref(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
func vol(name string, src corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: src}
}
func podWith(vs ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Name: "p", Namespace: "ns", Labels: map[string]string{"b": "2", "a": "1"}, Annotations: map[string]string{"k/x": "v"}},
		Spec: corev1.PodSpec{ServiceAccountName: "sa", Volumes: vs, Containers: []corev1.Container{{Name: "c"}}}}
}

func need(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("mounting needs root")
		}
		t.Skip("mounting needs root")
	}
}

func mounter(t *testing.T) *Mounter {
	m := &Mounter{Dir: t.TempDir(), Local: &localvolume.Store{Dir: t.TempDir()}, Allocatable: corev1.ResourceList{"memory": resource.MustParse("1Gi"), "cpu": resource.MustParse("2")}}
	t.Cleanup(func() {
		if err := m.Remove(t.Context(), podWith()); err != nil {
			t.Error(err)
		}
		if entries, _ := os.ReadDir(filepath.Join(m.Dir, "u")); len(entries) > 0 {
			t.Errorf("left: %v", entries)
		}
	})
	return m
}

func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if err != nil || d.IsDir() && rel == "." {
			return err
		}
		if strings.HasPrefix(rel, "..") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		st, err := os.Stat(p)
		if err != nil {
			return err
		}
		if st.IsDir() { // a link to a directory
			sub, _ := os.ReadDir(p)
			for _, s := range sub {
				b, _ := os.ReadFile(filepath.Join(p, s.Name()))
				out[rel+"/"+s.Name()] = string(b)
			}
			return nil
		}
		b, err := os.ReadFile(p)
		out[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func equal(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %q, want %q", what, got, want)
		return
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %s is %q, want %q", what, k, got[k], v)
		}
	}
}

func TestConfigMapFollowsItsObject(t *testing.T) {
	m := mounter(t)
	p := podWith(vol("v", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("cfg")}}))
	o := objects{cms: cm(map[string]string{"a": "1", "b": "2"})}
	sync := func() {
		t.Helper()
		if err := m.Sync(t.Context(), p, o); err != nil {
			t.Fatal(err)
		}
	}
	sync()
	dir := m.path("u", "v")
	equal(t, "first", content(t, dir), map[string]string{"a": "1", "b": "2"})
	before, _ := os.Readlink(filepath.Join(dir, "..data"))
	sync()
	if now, _ := os.Readlink(filepath.Join(dir, "..data")); now != before {
		t.Error("written anew without a change")
	}
	open, err := os.Open(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	o.cms = cm(map[string]string{"a": "new", "c": "3"})
	sync()
	equal(t, "changed", content(t, dir), map[string]string{"a": "new", "c": "3"})
	var b [1]byte
	if n, _ := open.Read(b[:]); n != 1 || b[0] != '1' {
		t.Error("a reader of the old file does not see the old content")
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 4 { // a, c, ..data and one directory
		t.Errorf("old versions are left: %v", entries)
	}
	// A power cut between the rename and the links.
	os.Remove(filepath.Join(dir, "c"))
	sync()
	equal(t, "mended", content(t, dir), map[string]string{"a": "new", "c": "3"})
}

func TestContents(t *testing.T) {
	need(t)
	items := []corev1.KeyToPath{{Key: "a", Path: "deep/er", Mode: ptr(int32(0o400))}}
	projected := &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref("cfg"), Items: items}},
		{Secret: &corev1.SecretProjection{LocalObjectReference: ref("sec")}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "ns", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}},
			{Path: "label", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['b']"}},
			{Path: "annotations", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}},
			{Path: "mem", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "c", Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}},
			{Path: "cpu", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "c", Resource: "limits.cpu", Divisor: resource.MustParse("1m")}}}}},
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault"}}}}
	m := mounter(t)
	p := podWith(vol("v", corev1.VolumeSource{Projected: projected}))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(77))}
	o := objects{cms: cm(map[string]string{"a": "A", "b": "B"}), secrets: map[string]*corev1.Secret{"sec": {Data: map[string][]byte{"s": []byte("S")}}},
		tokens: map[string]*wire.Token{"u/vault": {Token: "T"}}}
	if err := m.Sync(t.Context(), p, o); err != nil {
		t.Fatal(err)
	}
	dir := m.path("u", "v")
	equal(t, "projected", content(t, dir), map[string]string{"deep/er": "A", "s": "S", "ns": "ns", "label": "2", "annotations": `k/x="v"`, "mem": "1024", "cpu": "2000", "token": "T"})
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Error("secrets reach the disk")
	}
	for f, want := range map[string]os.FileMode{"deep/er": 0o440, "s": 0o644, "token": 0o640} {
		fi, err := os.Stat(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		_ = unix.Stat(filepath.Join(dir, f), &st)
		if fi.Mode() != want || st.Gid != 77 {
			t.Errorf("%s: mode %v, group %d, want %v, 77", f, fi.Mode(), st.Gid, want)
		}
	}
	// A newer token takes the place of the old; without one, the old stays.
	o.tokens["u/vault"] = &wire.Token{Token: "T2"}
	if err := m.Sync(t.Context(), p, o); err != nil {
		t.Fatal(err)
	}
	delete(o.tokens, "u/vault")
	if err := m.Sync(t.Context(), p, o); err == nil {
		t.Error("a missing token is no error")
	}
	if got := content(t, dir)["token"]; got != "T2" {
		t.Errorf("token is %q", got)
	}
}

func TestMissing(t *testing.T) {
	yes := true
	for _, c := range []struct {
		name string
		src  corev1.VolumeSource
		want string // part of the error; "" for none
	}{
		{"no configmap", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("none")}}, `MountVolume.SetUp failed for volume "v" : configmap "none" not found`},
		{"optional configmap", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("none"), Optional: &yes}}, ""},
		{"no secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "none"}}, `secret "none" not found`},
		{"no key", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("cfg"), Items: []corev1.KeyToPath{{Key: "z", Path: "z"}}}}, "references non-existent key: z"},
		{"optional key", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("cfg"), Optional: &yes, Items: []corev1.KeyToPath{{Key: "z", Path: "z"}}}}, ""},
		{"a way out", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("cfg"), Items: []corev1.KeyToPath{{Key: "a", Path: "../x"}}}}, "leads out of the volume"},
		{"unknown kind", corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/"}}, "not supported"},
		{"no such file", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/no/such", Type: ptr(corev1.HostPathFile)}}, "hostPath type check failed"},
		{"not a socket", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc/passwd", Type: ptr(corev1.HostPathSocket)}}, "is not a Socket"},
		{"a file", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc/passwd", Type: ptr(corev1.HostPathFile)}}, ""},
	} {
		m := &Mounter{Dir: t.TempDir()}
		if c.src.Secret != nil && os.Geteuid() != 0 {
			continue
		}
		err := m.Sync(t.Context(), podWith(vol("v", c.src)), objects{cms: cm(map[string]string{"a": "1"})})
		var ve *Error
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &ve)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestEmptyDirAndSubPath(t *testing.T) {
	need(t)
	m := mounter(t)
	size := resource.MustParse("1Mi")
	p := podWith(vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		vol("m", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &size}}))
	for range 2 { // again changes nothing
		if err := m.Sync(t.Context(), p, objects{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(m.path("u", "m"), "big"), make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("2 MiB into a limit of 1: %v", err)
	}
	src, err := m.MountSource(p, corev1.VolumeMount{Name: "e", SubPath: "x/y"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "f"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(m.path("u", "e"), "x/y/f")); err != nil {
		t.Error(err)
	}
	if again, err := m.MountSource(p, corev1.VolumeMount{Name: "e", SubPath: "x/y"}); err != nil || again != src {
		t.Errorf("asked again: %s, %v", again, err)
	}
	// Nothing leads out, whatever links a container has left.
	if err := os.Symlink("/etc", filepath.Join(m.path("u", "e"), "evil")); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"evil", "evil/passwd", "../m", "x/../../m"} {
		if src, err := m.MountSource(p, corev1.VolumeMount{Name: "e", SubPath: sub}); err == nil {
			if _, err := os.Stat(filepath.Join(src, "passwd")); err == nil || sub[0] == '.' {
				t.Errorf("subPath %s leads to %s", sub, src)
			}
		}
	}
	if _, err := m.MountSource(p, corev1.VolumeMount{Name: "none"}); err == nil {
		t.Error("a volume that is not there is mounted")
	}
}

// TestSubPathOfSpecialFiles checks that what a container has put at a subPath is bound as it is, and never waited for or
// opened; links are followed within the volume.
func TestSubPathOfSpecialFiles(t *testing.T) {
	need(t)
	m := mounter(t)
	p := podWith(vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	if err := m.Sync(t.Context(), p, objects{}); err != nil {
		t.Fatal(err)
	}
	dir := m.path("u", "e")
	if err := errors.Join(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600), unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))),
		unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o600, 0), os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755),
		os.WriteFile(filepath.Join(dir, "file"), []byte("hello"), 0o600), os.Symlink("../../file", filepath.Join(dir, "a", "b", "link")),
		os.Symlink("a/b", filepath.Join(dir, "ab")), os.Symlink("loop", filepath.Join(dir, "loop")), os.Symlink("../../outside", filepath.Join(dir, "up"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"fifo": os.ModeNamedPipe, "device": os.ModeDevice | os.ModeCharDevice, "socket": os.ModeSocket,
		"ab": os.ModeDir, "ab/link": 0, "a/b/link": 0} {
		done := make(chan error, 1)
		go func() {
			src, err := m.MountSource(p, corev1.VolumeMount{Name: "e", SubPath: name})
			if err == nil {
				var fi os.FileInfo
				if fi, err = os.Lstat(src); err == nil && fi.Mode().Type() != want {
					err = fmt.Errorf("it is %s, want %s", fi.Mode(), want)
				}
			}
			done <- err
		}()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: it hangs", name)
		}
	}
	for _, name := range []string{"loop", "up", "up/x"} {
		if src, err := m.MountSource(p, corev1.VolumeMount{Name: "e", SubPath: name}); err == nil {
			t.Errorf("%s leads to %s", name, src)
		}
	}
	// A hostPath that is a FIFO is no directory, and is not waited for either.
	if _, err := openRoot(filepath.Join(dir, "fifo")); err == nil {
		t.Error("a FIFO is a volume's directory")
	}
}

// TestModes checks that what a container has made of an emptyDir stays, and a subPath is as open as its volume.
func TestModes(t *testing.T) {
	need(t)
	m := mounter(t)
	p := podWith(vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		vol("m", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(4711))}
	mode := func(path string, want os.FileMode) {
		t.Helper()
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := fi.Mode() & (os.ModePerm | os.ModeSetgid); got != want || fi.Sys().(*syscall.Stat_t).Gid != 4711 {
			t.Errorf("%s: mode %v of group %d, want %v of 4711", path, got, fi.Sys().(*syscall.Stat_t).Gid, want)
		}
	}
	for _, v := range []string{"e", "m"} {
		dir := m.path("u", v)
		if err := m.Sync(t.Context(), p, objects{}); err != nil {
			t.Fatal(err)
		}
		mode(dir, 0o777|os.ModeSetgid)
		if _, err := m.MountSource(p, corev1.VolumeMount{Name: v, SubPath: "x/y"}); err != nil {
			t.Fatal(err)
		}
		mode(filepath.Join(dir, "x"), 0o777|os.ModeSetgid)
		mode(filepath.Join(dir, "x/y"), 0o777|os.ModeSetgid)
		if err := os.Chmod(dir, 0o700); err != nil { // as databases do
			t.Fatal(err)
		}
		if err := m.Sync(t.Context(), p, objects{}); err != nil {
			t.Fatal(err)
		}
		mode(dir, 0o700)
	}
}

// TestAtomicWriter checks that after any series of contents the volume shows exactly the last.
func TestAtomicWriter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "v")
		if err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(1, 5).Draw(rt, "writes") {
			names := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d/e", "d/f"}), rapid.ID[string]).Draw(rt, "names")
			files, want := map[string]file{}, map[string]string{}
			for _, n := range names {
				v := rapid.SampledFrom([]string{"", "1", "22"}).Draw(rt, "value")
				files[n], want[n] = file{[]byte(v), 0o644}, v
			}
			if err := writeAtomic(dir, files, nil); err != nil {
				rt.Fatal(err)
			}
			got := content(t, dir)
			if len(got) != len(want) {
				rt.Fatalf("%q, want %q", got, want)
			}
			for k, v := range want {
				if got[k] != v {
					rt.Fatalf("%q, want %q", got, want)
				}
			}
		}
	})
}

func ptr[T any](v T) *T { return &v }

// TestMemorySizes checks that an emptyDir in memory holds what its pod may have, or less where it says so; never half of the
// machine.
func TestMemorySizes(t *testing.T) {
	need(t)
	limits := func(text string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse(text)}}
	}
	for _, tt := range []struct {
		name, sizeLimit, podLimit, containerLimit string
		want                                      uint64
	}{
		{"nothing said: what the node has for pods", "", "", "", 1 << 30},
		{"the container's limit", "", "", "32Mi", 32 << 20},
		{"the pod's limit", "", "16Mi", "", 16 << 20},
		{"its own, which is less", "8Mi", "", "32Mi", 8 << 20},
		{"its own, which is more", "64Mi", "", "32Mi", 32 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := mounter(t)
			v := &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}
			if tt.sizeLimit != "" {
				v.SizeLimit = ptr(resource.MustParse(tt.sizeLimit))
			}
			p := podWith(vol("m", corev1.VolumeSource{EmptyDir: v}))
			p.Spec.Containers = []corev1.Container{{Name: "c"}}
			if tt.containerLimit != "" {
				p.Spec.Containers[0].Resources = limits(tt.containerLimit)
			}
			if tt.podLimit != "" {
				p.Spec.Resources = ptr(limits(tt.podLimit))
			}
			if err := m.Sync(t.Context(), p, objects{}); err != nil {
				t.Fatal(err)
			}
			var fs unix.Statfs_t
			if err := unix.Statfs(m.path("u", "m"), &fs); err != nil || fs.Blocks*uint64(fs.Bsize) != tt.want {
				t.Errorf("%d bytes, %v; want %d", fs.Blocks*uint64(fs.Bsize), err, tt.want)
			}
		})
	}
}

func localVolumes(t *testing.T) *localvolume.Store {
	return &localvolume.Store{Dir: filepath.Join(t.TempDir(), "volumes")}
}
