package flowcontrol

import (
	"testing"
	"testing/synctest"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// start runs a controller as a hub that starts does, until all is up to date.
func start(t *testing.T, c *controltest.Client) {
	go func() { _ = New(Config{Objects: c, Status: c}).Run(t.Context()) }()
	synctest.Wait()
}

func level(t *testing.T, c *controltest.Client, name string) *flowcontrolv1.PriorityLevelConfiguration {
	t.Helper()
	l, ok := control.Get[*flowcontrolv1.PriorityLevelConfiguration](c, kube.PriorityLevelConfiguration, "", name)
	if !ok {
		t.Fatalf("no level %s", name)
	}
	return l.DeepCopy()
}

func flowSchema(t *testing.T, c *controltest.Client, name string) *flowcontrolv1.FlowSchema {
	t.Helper()
	f, ok := control.Get[*flowcontrolv1.FlowSchema](c, kube.FlowSchema, "", name)
	if !ok {
		t.Fatalf("no schema %s", name)
	}
	return f.DeepCopy()
}

// dangling returns the status and the reason of a FlowSchema's condition.
func dangling(f *flowcontrolv1.FlowSchema) string {
	if len(f.Status.Conditions) != 1 || f.Status.Conditions[0].Type != flowcontrolv1.FlowSchemaConditionDangling {
		return "none"
	}
	return string(f.Status.Conditions[0].Status) + " " + f.Status.Conditions[0].Reason
}

// own is an administrator's FlowSchema.
func own(name, level string) *flowcontrolv1.FlowSchema {
	return &flowcontrolv1.FlowSchema{
		TypeMeta:   metav1.TypeMeta{APIVersion: flowcontrolv1.SchemeGroupVersion.String(), Kind: "FlowSchema"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       flowcontrolv1.FlowSchemaSpec{MatchingPrecedence: 5, PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level}},
	}
}

// TestObjectsOfEveryCluster checks that the first start makes all objects, and that the second writes nothing.
func TestObjectsOfEveryCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		start(t, c)
		for _, name := range []string{"exempt", "catch-all", "system", "node-high", "leader-election", "workload-high", "workload-low", "global-default"} {
			level(t, c, name)
		}
		if s := c.Stored(kube.FlowSchema, ""); len(s) != 11 {
			t.Errorf("%d schemas", len(s))
		}
		for _, o := range c.Stored(kube.FlowSchema, "") {
			if f := o.(*flowcontrolv1.FlowSchema); dangling(f) != "False Found" || f.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] != "true" {
				t.Errorf("%s: %s, %v", f.Name, dangling(f), f.Annotations)
			}
		}
		before := c.Revision()
		start(t, c)
		if c.Revision() != before {
			t.Error("a second start writes")
		}
	})
}

// TestAutoUpdate checks whose specs are put back: of mandatory objects always, of suggested ones as the annotation says, and without it
// while nobody has changed them.
func TestAutoUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		start(t, c)
		c.Remove(kube.PriorityLevelConfiguration, "", "catch-all")
		c.Remove(kube.FlowSchema, "", "service-accounts")
		shares := func(name, annotation string, generation int64) {
			l := level(t, c, name)
			n := int32(7)
			if l.Spec.Limited != nil {
				l.Spec.Limited.NominalConcurrencyShares = &n
			} else {
				l.Spec.Exempt.NominalConcurrencyShares = &n
			}
			if l.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] = annotation; annotation == "" {
				delete(l.Annotations, flowcontrolv1.AutoUpdateAnnotationKey)
			}
			l.Generation = generation
			c.Put(l)
		}
		shares("exempt", "false", 2)
		shares("system", "false", 2)
		shares("node-high", "true", 2)
		shares("leader-election", "", 2)
		shares("global-default", "", 1)
		synctest.Wait()
		level(t, c, "catch-all")
		flowSchema(t, c, "service-accounts")
		for name, want := range map[string]struct {
			shares     int32
			annotation string
		}{"exempt": {7, "true"}, "system": {7, "false"}, "node-high": {40, "true"}, "leader-election": {7, "false"}, "global-default": {20, "true"}} {
			l := level(t, c, name)
			var got *int32
			if l.Spec.Limited != nil {
				got = l.Spec.Limited.NominalConcurrencyShares
			} else {
				got = l.Spec.Exempt.NominalConcurrencyShares
			}
			if a := l.Annotations[flowcontrolv1.AutoUpdateAnnotationKey]; *got != want.shares || a != want.annotation {
				t.Errorf("%s: %d shares, annotated %q", name, *got, a)
			}
		}
	})
}

// TestDangling checks that the condition of a FlowSchema follows its level, and that objects of an earlier version go.
func TestDangling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		former := own("former", "exempt")
		former.Annotations = map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: "true"}
		kept := own("kept", "exempt")
		kept.Annotations = map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: "false"}
		c := controltest.New(t, former, kept, own("mine", "later"))
		start(t, c)
		if _, ok := c.Get(kube.FlowSchema, "", "former"); ok {
			t.Error("an object of an earlier version is still there")
		}
		if d := dangling(flowSchema(t, c, "kept")); d != "False Found" {
			t.Error(d)
		}
		mine := flowSchema(t, c, "mine")
		if m := mine.Status.Conditions[0].Message; dangling(mine) != "True NotFound" ||
			m != `This FlowSchema references the PriorityLevelConfiguration object named "later" but there is no such object` {
			t.Errorf("%s: %s", dangling(mine), m)
		}
		later := level(t, c, "system")
		later.Name, later.UID, later.Annotations = "later", "", nil
		c.Put(later)
		synctest.Wait()
		if d := dangling(flowSchema(t, c, "mine")); d != "False Found" {
			t.Error(d)
		}
		c.Remove(kube.PriorityLevelConfiguration, "", "later")
		synctest.Wait()
		if d := dangling(flowSchema(t, c, "mine")); d != "True NotFound" {
			t.Error(d)
		}
	})
}
