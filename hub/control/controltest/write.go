package controltest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Create stores a new object without its status.
func (c *Client) Create(_ context.Context, obj kube.Object) (kube.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, err := c.create(obj)
	if err != nil {
		return nil, err
	}
	c.commit([]control.Change{ch})
	c.note("create", ch.New, "")
	return ch.New, nil
}

func (c *Client) create(obj kube.Object) (control.Change, error) {
	o := obj.DeepCopyObject().(kube.Object)
	gvk := setGVK(o)
	if o.GetName() == "" && o.GetGenerateName() != "" {
		c.uids++
		o.SetName(o.GetGenerateName() + suffix(c.uids))
	}
	if err := c.refuse("create", o, ""); err != nil {
		return control.Change{}, err
	}
	if o.GetName() == "" {
		return control.Change{}, apierrors.NewBadRequest("name or generateName is required")
	}
	if c.truth[gvk][key(o)] != nil {
		return control.Change{}, apierrors.NewAlreadyExists(resourceOf(gvk), o.GetName())
	}
	o.SetUID("")
	o.SetCreationTimestamp(metav1.Time{})
	o.SetGeneration(0)
	o.SetDeletionTimestamp(nil)
	c.fillNew(o)
	clearStatus(o)
	switch o := o.(type) {
	case *corev1.Pod:
		o.Status.Phase = corev1.PodPending
	case *corev1.Namespace:
		o.Status.Phase = corev1.NamespaceActive
		if !slices.Contains(o.Spec.Finalizers, corev1.FinalizerKubernetes) {
			o.Spec.Finalizers = append(o.Spec.Finalizers, corev1.FinalizerKubernetes)
		}
	}
	return control.Change{GVK: gvk, New: o}, nil
}

// Update replaces the object, or what the subresource covers: "status", "approval" (CertificateSigningRequests), "binding" (Pods), "finalize" (Namespaces).
func (c *Client) Update(_ context.Context, obj kube.Object, subresource string) (kube.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, err := c.update(obj, subresource)
	if err != nil {
		return nil, err
	}
	return c.apply("update", ch, subresource), nil
}

func (c *Client) update(obj kube.Object, sub string) (control.Change, error) {
	o := obj.DeepCopyObject().(kube.Object)
	gvk := setGVK(o)
	if err := c.refuse("update", o, sub); err != nil {
		return control.Change{}, err
	}
	old := c.truth[gvk][key(o)]
	if old == nil {
		return control.Change{}, apierrors.NewNotFound(resourceOf(gvk), o.GetName())
	}
	if o.GetUID() != "" && o.GetUID() != old.GetUID() {
		return control.Change{}, conflict(gvk, o.GetName(), fmt.Sprintf("Precondition failed: UID in precondition: %v, UID in object meta: %v", o.GetUID(), old.GetUID()))
	}
	if rv := o.GetResourceVersion(); rv != "" && rv != old.GetResourceVersion() {
		return control.Change{}, conflict(gvk, o.GetName(), "the object has been modified; please apply your changes to the latest version and try again")
	}
	merged, err := merge(gvk, o, old, sub)
	return control.Change{GVK: gvk, Old: old, New: merged}, err
}

// merge returns old with what the subresource may change taken from the new object o.
func merge(gvk kube.GVK, o, old kube.Object, sub string) (kube.Object, error) {
	switch sub {
	case "":
		copyStatus(o, old)
		keepMeta(o, old)
		if !equality.Semantic.DeepEqual(field(o, "Spec"), field(old, "Spec")) || (o.GetDeletionTimestamp() != nil) != (old.GetDeletionTimestamp() != nil) {
			o.SetGeneration(old.GetGeneration() + 1)
		}
		return o, nil
	case "status", "approval":
		out := old.DeepCopyObject().(kube.Object)
		copyStatus(out, o)
		return out, nil
	case "binding":
		pod, ok := o.(*corev1.Pod)
		if !ok {
			break
		}
		out := old.DeepCopyObject().(*corev1.Pod)
		if out.Spec.NodeName != "" {
			return nil, conflict(gvk, o.GetName(), fmt.Sprintf("pod %s is already assigned to node %q", o.GetName(), out.Spec.NodeName))
		}
		if out.DeletionTimestamp != nil {
			return nil, conflict(gvk, o.GetName(), fmt.Sprintf("pod %s is being deleted, cannot be assigned to a host", o.GetName()))
		}
		out.Spec.NodeName = pod.Spec.NodeName
		out.Status.NominatedNodeName = ""
		setScheduled(out)
		return out, nil
	case "finalize":
		ns, ok := o.(*corev1.Namespace)
		if !ok {
			break
		}
		out := old.DeepCopyObject().(*corev1.Namespace)
		out.Spec.Finalizers = ns.Spec.Finalizers
		return out, nil
	}
	return nil, apierrors.NewNotFound(resourceOf(gvk), o.GetName()+"/"+sub)
}

func setScheduled(pod *corev1.Pod) {
	pod.Status.Conditions = append(kube.RemoveCondition(pod.Status.Conditions, corev1.PodScheduled), corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue})
}

// apply commits an update. An object whose deletion waited only for what the update took away is deleted.
func (c *Client) apply(verb string, ch control.Change, sub string) kube.Object {
	if equality.Semantic.DeepEqual(ch.New, ch.Old) {
		return ch.Old // nothing is written when nothing changes
	}
	last := ch.New
	if ch.New.GetDeletionTimestamp() != nil && finished(ch.New) {
		ch.New = nil
	}
	c.commit([]control.Change{ch})
	c.note(verb, last, sub)
	return last
}

func finished(o kube.Object) bool {
	if len(o.GetFinalizers()) > 0 {
		return false
	}
	if ns, ok := o.(*corev1.Namespace); ok && len(ns.Spec.Finalizers) > 0 {
		return false
	}
	grace := o.GetDeletionGracePeriodSeconds()
	return grace == nil || *grace == 0
}

// Delete begins or completes a deletion as the API does.
func (c *Client) Delete(_ context.Context, gvk kube.GVK, namespace, name string, opts metav1.DeleteOptions) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.truth[gvk][namespace+"/"+name]
	if old == nil {
		return apierrors.NewNotFound(resourceOf(gvk), name)
	}
	if err := c.refuse("delete", old, ""); err != nil {
		return err
	}
	if p := opts.Preconditions; p != nil {
		if p.UID != nil && *p.UID != old.GetUID() {
			return conflict(gvk, name, fmt.Sprintf("Precondition failed: UID in precondition: %v, UID in object meta: %v", *p.UID, old.GetUID()))
		}
		if p.ResourceVersion != nil && *p.ResourceVersion != old.GetResourceVersion() {
			return conflict(gvk, name, "Precondition failed: ResourceVersion")
		}
	}
	o := old.DeepCopyObject().(kube.Object)
	o.SetFinalizers(propagation(o.GetFinalizers(), opts.PropagationPolicy))
	grace := graceOf(o, opts.GracePeriodSeconds)
	if o.GetDeletionTimestamp() == nil {
		o.SetGeneration(o.GetGeneration() + 1)
	} else if g := o.GetDeletionGracePeriodSeconds(); g != nil {
		grace = min(grace, *g) // a second deletion can only shorten the first
	}
	if o.GetDeletionTimestamp() == nil || (o.GetDeletionGracePeriodSeconds() != nil && grace < *o.GetDeletionGracePeriodSeconds()) {
		t := metav1.NewTime(c.Now().Add(kube.Seconds(grace)).Truncate(time.Second))
		o.SetDeletionTimestamp(&t)
		o.SetDeletionGracePeriodSeconds(&grace)
	}
	if ns, ok := o.(*corev1.Namespace); ok && len(ns.Spec.Finalizers) > 0 {
		ns.Status.Phase = corev1.NamespaceTerminating
	}
	c.apply("delete", control.Change{GVK: gvk, Old: old, New: o}, "")
	return nil
}

func graceOf(o kube.Object, wanted *int64) int64 {
	pod, ok := o.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return 0
	}
	if wanted != nil {
		return max(0, *wanted)
	}
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return *g
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}

func propagation(finalizers []string, policy *metav1.DeletionPropagation) []string {
	if policy == nil {
		return finalizers
	}
	out := slices.DeleteFunc(slices.Clone(finalizers), func(f string) bool {
		return f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
	})
	switch *policy {
	case metav1.DeletePropagationOrphan:
		out = append(out, metav1.FinalizerOrphanDependents)
	case metav1.DeletePropagationForeground:
		out = append(out, metav1.FinalizerDeleteDependents)
	}
	return out
}

// Commit makes all writes or none.
func (c *Client) Commit(_ context.Context, writes []control.Write) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var changes []control.Change
	for _, w := range writes {
		ch, err := c.plan(w)
		if err != nil {
			return err
		}
		changes = append(changes, ch)
	}
	for i, w := range writes {
		switch {
		case w.Delete:
			c.commit(changes[i : i+1])
			c.note("delete", w.Old, "")
		case w.Old == nil:
			c.commit(changes[i : i+1])
			c.note("create", changes[i].New, "")
		default:
			c.apply("update", changes[i], w.Subresource)
		}
	}
	return nil
}

func (c *Client) plan(w control.Write) (control.Change, error) {
	if w.Old == nil {
		return c.create(w.Object)
	}
	gvk := setGVK(w.Old.DeepCopyObject().(kube.Object))
	now := c.truth[gvk][key(w.Old)]
	if now == nil {
		return control.Change{}, apierrors.NewNotFound(resourceOf(gvk), w.Old.GetName())
	}
	if now.GetResourceVersion() != w.Old.GetResourceVersion() {
		return control.Change{}, conflict(gvk, w.Old.GetName(), "the object has been modified; please apply your changes to the latest version and try again")
	}
	if w.Delete {
		if err := c.refuse("delete", now, ""); err != nil {
			return control.Change{}, err
		}
		return control.Change{GVK: gvk, Old: now}, nil
	}
	return c.update(w.Object, w.Subresource)
}

func (c *Client) refuse(verb string, o kube.Object, sub string) error {
	if c.Refuse == nil {
		return nil
	}
	return c.Refuse(verb, o, sub)
}

func (c *Client) note(verb string, o kube.Object, sub string) {
	s := verb + " " + setGVK(o).Kind + " "
	if o.GetNamespace() != "" {
		s += o.GetNamespace() + "/"
	}
	s += o.GetName()
	if sub != "" {
		s += " " + sub
	}
	c.writes = append(c.writes, s)
}

// kinds are those that a test may use without TypeMeta.
var kinds = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, autoscalingv2.AddToScheme, batchv1.AddToScheme, certificatesv1.AddToScheme, coordinationv1.AddToScheme,
		corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme, nodev1.AddToScheme, policyv1.AddToScheme, storagev1.AddToScheme} {
		if err := add(s); err != nil {
			panic("controltest: " + err.Error())
		}
	}
	return s
}()

// setGVK fills in the object's TypeMeta, as every stored object has it.
func setGVK(o kube.Object) kube.GVK {
	gvk := o.GetObjectKind().GroupVersionKind()
	if gvk.Kind != "" {
		return gvk
	}
	gvks, _, err := kinds.ObjectKinds(o)
	if err != nil {
		panic("controltest: " + err.Error())
	}
	o.GetObjectKind().SetGroupVersionKind(gvks[0])
	return gvks[0]
}

func keepMeta(o, old kube.Object) {
	o.SetUID(old.GetUID())
	o.SetCreationTimestamp(old.GetCreationTimestamp())
	o.SetGeneration(old.GetGeneration())
	o.SetDeletionTimestamp(old.GetDeletionTimestamp())
	o.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	o.SetResourceVersion(old.GetResourceVersion())
}

func field(o kube.Object, name string) any {
	f := reflect.ValueOf(o).Elem().FieldByName(name)
	if !f.IsValid() {
		return nil
	}
	return f.Interface()
}

func clearStatus(o kube.Object) {
	if f := reflect.ValueOf(o).Elem().FieldByName("Status"); f.IsValid() {
		f.SetZero()
	}
}

func copyStatus(dst, src kube.Object) {
	if f := reflect.ValueOf(dst).Elem().FieldByName("Status"); f.IsValid() {
		f.Set(reflect.ValueOf(src.DeepCopyObject()).Elem().FieldByName("Status"))
	}
}

func conflict(gvk kube.GVK, name, why string) error {
	return apierrors.NewConflict(resourceOf(gvk), name, fmt.Errorf("%s", why))
}

// resourceOf returns a plural that is good enough for error texts.
func resourceOf(gvk kube.GVK) schema.GroupResource {
	plural := map[string]string{"Endpoints": "endpoints"}[gvk.Kind]
	if plural == "" {
		plural = lower(gvk.Kind) + "s"
	}
	return schema.GroupResource{Group: gvk.Group, Resource: plural}
}

func podNode(o kube.Object) []string {
	if n := o.(*corev1.Pod).Spec.NodeName; n != "" {
		return []string{n}
	}
	return nil
}

func uid(n uint64) types.UID { return types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n)) }
