package core

import (
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

var eventFields = []string{"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
	"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
	"reason", "reportingComponent", "source", "type"}

func eventKind() *resource.Kind {
	k := resource.Declare(kube.Event, "events", "event")
	k.ShortNames = []string{"ev"}
	k.NoGarbageCollection = true
	k.Rules = eventRules(corev1.SchemeGroupVersion)
	k.TTL = &resource.TTL{After: time.Hour, MaxObjects: 10_000, MaxBytes: 16 << 20, LastWrite: lastSeen} // the hour is Kubernetes' own
	k.SelectFields(selectEvent, eventFields...)
	return k
}

// eventViewKind is events.k8s.io/v1, the newer spelling of the same stored events. It has stricter rules than
// core's: its Rules replace the stored kind's for requests that come this way, and work on stored objects
// like them.
func eventViewKind(stored *resource.Kind) *resource.Kind {
	k := resource.Declare(eventsv1.SchemeGroupVersion.WithKind("Event"), "events", "event")
	k.ShortNames = []string{"ev"}
	k.StoredAs = stored
	k.Rules = eventRules(eventsv1.SchemeGroupVersion)
	// Values are found under the stored kind's labels, which FieldSelector translates the view's to.
	k.SelectFields(selectEvent)
	k.FieldLabels = []string{"metadata.name", "metadata.namespace", "reason", "regarding.kind", "regarding.namespace",
		"regarding.name", "regarding.uid", "regarding.apiVersion", "regarding.resourceVersion", "regarding.fieldPath",
		"reportingController", "type"}
	return k
}

// lastSeen returns the latest of an event's times.
func lastSeen(data []byte) time.Time {
	var ev struct {
		Metadata struct {
			CreationTimestamp time.Time `json:"creationTimestamp"`
		} `json:"metadata"`
		LastTimestamp *time.Time `json:"lastTimestamp"`
		Series        *struct {
			LastObservedTime time.Time `json:"lastObservedTime"`
		} `json:"series"`
	}
	if json.Unmarshal(data, &ev) != nil {
		return time.Time{}
	}
	at := ev.Metadata.CreationTimestamp
	if ev.LastTimestamp != nil && ev.LastTimestamp.After(at) {
		at = *ev.LastTimestamp
	}
	if ev.Series != nil && ev.Series.LastObservedTime.After(at) {
		at = ev.Series.LastObservedTime
	}
	return at
}

func eventRules(gv schema.GroupVersion) resource.Rules {
	return resource.Strategy[api.Event]{
		ValidateCreate: func(e *api.Event) field.ErrorList { return validation.ValidateEventCreate(e, gv) },
		ValidateUpdate: func(e, old *api.Event) field.ErrorList { return validation.ValidateEventUpdate(e, old, gv) },
		CreateOnUpdate: true,
	}.Rules()
}

func selectEvent(obj kube.Object, s fields.Set) {
	e, ok := obj.(*corev1.Event)
	if !ok {
		stored := &corev1.Event{}
		resource.External(resource.Internal[api.Event](obj), stored)
		e = stored
	}
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	s["involvedObject.kind"] = e.InvolvedObject.Kind
	s["involvedObject.namespace"] = e.InvolvedObject.Namespace
	s["involvedObject.name"] = e.InvolvedObject.Name
	s["involvedObject.uid"] = string(e.InvolvedObject.UID)
	s["involvedObject.apiVersion"] = e.InvolvedObject.APIVersion
	s["involvedObject.resourceVersion"] = e.InvolvedObject.ResourceVersion
	s["involvedObject.fieldPath"] = e.InvolvedObject.FieldPath
	s["reason"] = e.Reason
	s["reportingComponent"] = e.ReportingController
	s["source"] = source
	s["type"] = e.Type
}
