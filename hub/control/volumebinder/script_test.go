package volumebinder

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/volumeprotection"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

// The scripts are timelines of the binder, with the controller of the finalizers beside it. Commands:
//
//	class c key=value...    a StorageClass: by (provisioner), wait (for a pod), default, policy
//	volume v key=value...   a volume: size class modes mode policy claim (kept for it) by (provisioner) label
//	claim c key=value...    a claim: size class modes mode volume node (selected) label (selector)
//	bind v c                the scheduler binds them, or (v is "new") makes a volume on the claim's node
//	pod p c [node]          a pod with the claim
//	node n, gone n          the Node is there, or deleted
//	delete claim|volume x   by a user
//	vanish v                the volume's object is gone, whatever its finalizers
//	retain v                its reclaim policy becomes Retain
//	removed v               the node has reported that the directory is gone
//	show                    all claims and volumes
//	events                  those since the last time
func TestScripts(t *testing.T) {
	controltest.Scripts(t, func(t *testing.T, path string) {
		w := newScript(t)
		controltest.Script(t, path, w.command)
	})
}

type script struct {
	t      *testing.T
	c      *controltest.Client
	events *controltest.Events
}

func newScript(t *testing.T, objs ...kube.Object) *script {
	w := &script{t: t, c: controltest.New(t, objs...), events: &controltest.Events{}}
	binder := New(Config{Client: w.c, Events: w.events})
	protection := volumeprotection.New(w.c, nil)
	go func() { _ = binder.Run(t.Context()) }()
	go func() { _ = protection.Run(t.Context()) }()
	w.settle()
	return w
}

// settle waits until the controllers have nothing to do (conflicts come again within a second).
func (w *script) settle() {
	for range 3 {
		synctest.Wait()
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

// keys returns the arguments key=value; a key alone is "yes".
func keys(args []string) map[string]string {
	out := map[string]string{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			v = "yes"
		}
		out[k] = v
	}
	return out
}

func modes(text string) (out []corev1.PersistentVolumeAccessMode) {
	names := map[string]corev1.PersistentVolumeAccessMode{"": corev1.ReadWriteOnce, "RWO": corev1.ReadWriteOnce, "RWX": corev1.ReadWriteMany,
		"ROX": corev1.ReadOnlyMany, "RWOP": corev1.ReadWriteOncePod}
	for m := range strings.SplitSeq(text, ",") {
		out = append(out, names[m])
	}
	return out
}

func volumeMode(text string) *corev1.PersistentVolumeMode {
	if text == "" {
		return new(corev1.PersistentVolumeFilesystem)
	}
	return new(corev1.PersistentVolumeMode(text))
}

func size(text string) corev1.ResourceList {
	if text == "" {
		text = "1Gi"
	}
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(text)}
}

func (w *script) command(cmd string, args []string) string {
	switch cmd {
	case "class":
		w.c.Put(class(args[0], keys(args[1:])))
	case "volume":
		w.c.Put(volume(args[0], keys(args[1:])))
	case "claim":
		w.c.Put(claim(args[0], keys(args[1:])))
	case "bind":
		w.bind(args[0], args[1])
	case "pod":
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: args[0]}, Status: corev1.PodStatus{Phase: corev1.PodPending},
			Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: args[1]}}}}}}
		if len(args) > 2 {
			p.Spec.NodeName = args[2]
		}
		w.c.Put(p)
	case "node":
		w.c.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: args[0], Labels: map[string]string{corev1.LabelHostname: args[0]}}})
	case "gone":
		w.c.Remove(kube.Node, "", args[0])
	case "delete":
		gvk, ns := kube.PersistentVolumeClaim, "ns"
		if args[0] == "volume" {
			gvk, ns = kube.PersistentVolume, ""
		}
		w.must(w.c.Delete(w.t.Context(), gvk, ns, args[1], metav1.DeleteOptions{}))
	case "vanish":
		w.c.Remove(kube.PersistentVolume, "", args[0])
	case "retain":
		v := w.volume(args[0]).DeepCopy()
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
		w.update(v)
	case "removed":
		v := w.volume(args[0]).DeepCopy()
		v.Finalizers = slices.DeleteFunc(v.Finalizers, func(f string) bool { return f == localpath.Finalizer })
		w.update(v)
	case "events":
		return strings.Join(w.events.Take(), "\n")
	case "show":
		w.settle()
		return w.show()
	default:
		w.t.Fatalf("no command %q", cmd)
	}
	w.settle()
	return ""
}

func class(name string, k map[string]string) *storagev1.StorageClass {
	c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: k["by"], VolumeBindingMode: new(storagev1.VolumeBindingImmediate)}
	if k["by"] == "" {
		c.Provisioner = localpath.Provisioner
	}
	if k["wait"] != "" {
		c.VolumeBindingMode = new(storagev1.VolumeBindingWaitForFirstConsumer)
	}
	if k["default"] != "" {
		c.Annotations = map[string]string{kube.DefaultStorage: "true"}
	}
	return c
}

func volume(name string, k map[string]string) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{kube.VolumeProtection}},
		Spec: corev1.PersistentVolumeSpec{Capacity: size(k["size"]), AccessModes: modes(k["modes"]), StorageClassName: k["class"], VolumeMode: volumeMode(k["mode"]),
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain}}
	if k["policy"] != "" {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimPolicy(k["policy"])
	}
	if k["claim"] != "" {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "ns", Name: k["claim"]}
	}
	if k["label"] != "" {
		v.Labels = map[string]string{"disk": k["label"]}
	}
	if k["by"] != "" {
		v.Annotations = map[string]string{kube.ProvisionedBy: k["by"]}
	}
	return v
}

func claim(name string, k map[string]string) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Finalizers: []string{kube.ClaimProtection}},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes(k["modes"]), VolumeMode: volumeMode(k["mode"]), VolumeName: k["volume"],
			Resources: corev1.VolumeResourceRequirements{Requests: size(k["size"])}},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}}
	if name, ok := k["class"]; ok {
		c.Spec.StorageClassName = &name
	}
	if k["label"] != "" {
		c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"disk": k["label"]}}
	}
	if k["node"] != "" {
		c.Annotations = map[string]string{kube.SelectedNode: k["node"]}
	}
	if k["uid"] != "" {
		c.UID = types.UID(k["uid"])
	}
	return c
}

func (w *script) volume(name string) *corev1.PersistentVolume {
	v, ok := control.Get[*corev1.PersistentVolume](w.c, kube.PersistentVolume, "", name)
	if !ok {
		w.t.Fatalf("no volume %s", name)
	}
	return v
}

func (w *script) bind(volume, name string) {
	c, _ := control.Get[*corev1.PersistentVolumeClaim](w.c, kube.PersistentVolumeClaim, "ns", name)
	if volume != "new" {
		w.must(w.c.Commit(w.t.Context(), Bind(w.volume(volume), c).Writes()))
		return
	}
	class, _ := control.Get[*storagev1.StorageClass](w.c, kube.StorageClass, "", *c.Spec.StorageClassName)
	n, _ := control.Get[*corev1.Node](w.c, kube.Node, "", "n1")
	w.must(w.c.Commit(w.t.Context(), Provision(c, class, n).Writes()))
}

func (w *script) update(obj kube.Object) {
	_, err := w.c.Update(w.t.Context(), obj, "")
	w.must(err)
}

func (w *script) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *script) show() string {
	var lines []string
	for _, c := range control.List[*corev1.PersistentVolumeClaim](w.c, kube.PersistentVolumeClaim, "") {
		line := fmt.Sprintf("claim %s: %s", c.Name, c.Status.Phase)
		if c.Spec.VolumeName != "" {
			line += " to " + c.Spec.VolumeName
		}
		if s := c.Status.Capacity.Storage(); !s.IsZero() {
			line += " " + s.String()
		}
		for key, short := range map[string]string{kube.StorageProvisioner: " for "} {
			if by := c.Annotations[key]; by != "" {
				line += short + by
			}
		}
		if name := c.Spec.StorageClassName; name != nil {
			line += fmt.Sprintf(" class=%q", *name)
		}
		lines = append(lines, line+ending(c))
	}
	for _, v := range control.List[*corev1.PersistentVolume](w.c, kube.PersistentVolume, "") {
		line := fmt.Sprintf("volume %s: %s", v.Name, v.Status.Phase)
		if ref := v.Spec.ClaimRef; ref != nil {
			line += " for " + ref.Name
			if ref.UID == "" {
				line += " (kept)"
			}
		}
		if v.Status.Message != "" {
			line += ": " + v.Status.Message
		}
		lines = append(lines, line+ending(v))
	}
	return strings.Join(lines, "\n")
}

// ending returns what keeps an object that is deleted.
func ending(o kube.Object) string {
	if o.GetDeletionTimestamp() == nil {
		return ""
	}
	return " ending " + strings.Join(o.GetFinalizers(), ",")
}

// Nothing is written while nothing changes, with claims in every state.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScript(t, class("slow", map[string]string{"wait": "yes"}), class("other", map[string]string{"by": "example.com/x"}),
			volume("v", nil), claim("bound", map[string]string{"class": ""}), claim("waits", map[string]string{"class": "slow"}),
			claim("asks", map[string]string{"class": "other"}), claim("alone", map[string]string{"class": ""}), volume("lost", map[string]string{"claim": "nobody"}))
		w.c.Writes()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if wrote := w.c.Writes(); len(wrote) > 0 {
			t.Errorf("wrote %q", wrote)
		}
	})
}
