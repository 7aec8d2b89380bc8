// Package flowcontrol keeps the FlowSchemas and PriorityLevelConfigurations that every cluster has, as Kubernetes does, and says of each
// FlowSchema whether its level exists.
//
//	mandatory  exempt, catch-all: made again, and their spec put back, whatever happens to them
//	suggested  the others: made again; their spec is put back unless apf.kubernetes.io/autoupdate-spec is "false", or an administrator
//	           has changed an object that never had the annotation
//	former     those of an earlier version, annotated "true", that this one does not have: deleted
//
// The data is upstream's own. What is as it should be is not written.
package flowcontrol

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Field managers of what is written, with upstream's names.
const (
	Producer = "api-priority-and-fairness-config-producer-v1"
	Consumer = "api-priority-and-fairness-config-consumer-v1"
)

// Config of a Controller. All fields but Log are required.
type Config struct {
	Objects control.Client // writes objects, as Producer
	Status  control.Client // writes their status, as Consumer
	Log     *slog.Logger   // nil: discarded
}

// Controller keeps the objects.
type Controller struct {
	cfg  Config // does not change after New
	loop *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{cfg: cfg}
	one := control.Key{Name: "cluster"}
	all := func(control.Change) []control.Key { return []control.Key{one} }
	c.loop = &control.Loop{
		Name: "flowcontrol", Client: cfg.Objects, Log: cfg.Log,
		Reconcile: func(ctx context.Context, _ control.Key) (time.Duration, error) { return 0, c.reconcile(ctx) },
		Sources:   []control.Source{{GVK: kube.FlowSchema, Keys: all}, {GVK: kube.PriorityLevelConfiguration, Keys: all}},
	}
	c.loop.Enqueue(one)
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// reconcile writes all objects that differ in one transaction, and then all statuses in another: a hub that starts for the first time
// writes twice.
func (c *Controller) reconcile(ctx context.Context) error {
	levels := control.List[*flowcontrolv1.PriorityLevelConfiguration](c.cfg.Objects, kube.PriorityLevelConfiguration, "")
	schemas := control.List[*flowcontrolv1.FlowSchema](c.cfg.Objects, kube.FlowSchema, "")
	d := difference{}
	compare(&d, kube.PriorityLevelConfiguration, levels, bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations, fitLevel)
	compare(&d, kube.FlowSchema, schemas, bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas, fitSchema)
	for _, o := range d.former {
		uid := o.GetUID()
		err := c.cfg.Objects.Delete(ctx, control.GVKOf(o), "", o.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if control.IgnoreNotFound(err) != nil {
			return err
		}
	}
	if len(d.writes) > 0 {
		return c.cfg.Objects.Commit(ctx, d.writes) // each change has this called again
	}
	exists := make(map[string]bool, len(levels))
	for _, l := range levels {
		exists[l.Name] = true
	}
	var status []control.Write
	for _, f := range schemas {
		if next := withDangling(f, exists[f.Spec.PriorityLevelConfiguration.Name]); next != nil {
			status = append(status, control.Write{Object: next, Old: f, Subresource: "status"})
		}
	}
	if len(status) == 0 {
		return nil
	}
	return c.cfg.Status.Commit(ctx, status)
}

// difference is what has to be done so that what is stored is what should be.
type difference struct {
	writes []control.Write
	former []kube.Object // to delete
}

// compare adds to d what one kind needs. fit gives an object the spec that it should have.
func compare[T kube.Object](d *difference, gvk kube.GVK, stored, mandatory, suggested []T, fit func(o, want T)) {
	have := make(map[string]T, len(stored))
	for _, o := range stored {
		have[o.GetName()] = o
	}
	keep := func(want T, always bool) {
		old, ok := have[want.GetName()]
		delete(have, want.GetName())
		if !ok {
			made := want.DeepCopyObject().(kube.Object)
			made.GetObjectKind().SetGroupVersionKind(gvk)
			d.writes = append(d.writes, control.Write{Object: made})
			return
		}
		next := old.DeepCopyObject().(T)
		follows := always || updates(old)
		annotate(next, follows)
		if follows {
			fit(next, want)
		}
		if !equality.Semantic.DeepEqual(old, next) {
			d.writes = append(d.writes, control.Write{Object: next, Old: old})
		}
	}
	for _, o := range mandatory {
		keep(o, true)
	}
	for _, o := range suggested {
		keep(o, false)
	}
	for _, o := range stored {
		follows, err := strconv.ParseBool(o.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey])
		if _, unknown := have[o.GetName()]; unknown && err == nil && follows && o.GetDeletionTimestamp() == nil {
			d.former = append(d.former, o)
		}
	}
}

// updates reports whether the spec of a suggested object follows the hub's version.
func updates(o metav1.Object) bool {
	if follow, err := strconv.ParseBool(o.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey]); err == nil {
		return follow
	}
	return o.GetGeneration() == 1 // nobody has changed the spec
}

// annotate records whether the spec follows.
func annotate(o metav1.Object, follows bool) {
	all := o.GetAnnotations()
	if now, err := strconv.ParseBool(all[flowcontrolv1.AutoUpdateAnnotationKey]); err == nil && now == follows {
		return
	}
	if all == nil {
		all = map[string]string{}
	}
	all[flowcontrolv1.AutoUpdateAnnotationKey] = strconv.FormatBool(follows)
	o.SetAnnotations(all)
}

// fitLevel leaves the shares of "exempt" to the administrator: nothing else of it can be chosen.
func fitLevel(o, want *flowcontrolv1.PriorityLevelConfiguration) {
	chosen := o.Spec.Exempt
	o.Spec = *want.Spec.DeepCopy()
	if chosen != nil && o.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt {
		o.Spec.Exempt = chosen
	}
}

func fitSchema(o, want *flowcontrolv1.FlowSchema) { o.Spec = *want.Spec.DeepCopy() }

// withDangling returns f with the condition that says whether its level exists; nil when it says so already.
func withDangling(f *flowcontrolv1.FlowSchema, exists bool) *flowcontrolv1.FlowSchema {
	c := flowcontrolv1.FlowSchemaCondition{Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionTrue, Reason: "NotFound",
		Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q but there is no such object", f.Spec.PriorityLevelConfiguration.Name)}
	if exists {
		c.Status, c.Reason = flowcontrolv1.ConditionFalse, "Found"
		c.Message = fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", f.Spec.PriorityLevelConfiguration.Name)
	}
	if had := kube.FindCondition(f.Status.Conditions, c.Type); had != nil && had.Status == c.Status && had.Reason == c.Reason && had.Message == c.Message {
		return nil
	}
	c.LastTransitionTime = metav1.Now()
	next := f.DeepCopy()
	next.Status.Conditions = kube.SetCondition(next.Status.Conditions, c)
	return next
}
