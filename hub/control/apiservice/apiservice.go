// Package apiservice keeps APIServices: it registers the groups that the hub itself serves, and says of the others whether their
// servers are available.
//
//	kinds that are served ─► one APIService each, "Local"
//	APIService with a Service ─► ServiceNotFound, ServicePortError, EndpointsNotFound, MissingEndpoints, FailedDiscoveryCheck, Passed
package apiservice

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

var kind = apiregistrationv1.SchemeGroupVersion.WithKind("APIService")

const (
	// again is when a server is looked at again, as upstream's resync does. Only servers behind the hub cost this.
	again = 30 * time.Second
	// managedLabel is on APIServices that the hub has registered itself.
	managedLabel = "kube-aggregator.kubernetes.io/automanaged"
)

// Config is what the controller needs. All of it is required.
type Config struct {
	Client control.Client
	// Served yields the versions of groups that the hub serves itself, again after each change, until ctx ends.
	Served func(ctx context.Context) iter.Seq[[]schema.GroupVersion]
	// Look asks a server what it serves, and returns why it cannot be used; Forget drops what is known of one.
	Look   func(ctx context.Context, svc *apiregistrationv1.APIService) error
	Forget func(name string)
	Log    *slog.Logger
}

// Controller keeps APIServices.
type Controller struct {
	cfg  Config // does not change after New
	loop *control.Loop

	mu     sync.Mutex
	served map[string]schema.GroupVersion // by name of the APIService; nil until the first answer; guarded by mu
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{cfg: cfg}
	c.loop = &control.Loop{
		Name: "apiservice", Client: cfg.Client, Log: cfg.Log, Workers: 4, // one server that hangs must not hold up the others
		Reconcile: func(ctx context.Context, key control.Key) (time.Duration, error) { return c.reconcile(ctx, key.Name) },
		Sources: []control.Source{
			{GVK: kind},
			{GVK: kube.Service, Keys: func(ch control.Change) []control.Key {
				return c.of(ch.Object().GetNamespace(), ch.Object().GetName())
			}},
			{GVK: kube.EndpointSlice, Keys: func(ch control.Change) []control.Key {
				return c.of(ch.Object().GetNamespace(), ch.Object().GetLabels()[discoveryv1.LabelServiceName])
			}},
		},
	}
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.follow(ctx) })
	return c.loop.Run(ctx)
}

// follow has each version looked at that begins or ceases to be served.
func (c *Controller) follow(ctx context.Context) {
	for versions := range c.cfg.Served(ctx) {
		now := make(map[string]schema.GroupVersion, len(versions))
		for _, gv := range versions {
			now[gv.Version+"."+gv.Group] = gv
		}
		c.mu.Lock()
		before := c.served
		c.served = now
		c.mu.Unlock()
		for _, names := range []map[string]schema.GroupVersion{before, now} {
			for name := range names {
				_, was := before[name]
				if _, is := now[name]; was != is {
					c.loop.Enqueue(control.Key{Name: name})
				}
			}
		}
	}
}

// of returns the keys of the APIServices whose server is a Service.
func (c *Controller) of(namespace, service string) (keys []control.Key) {
	for _, svc := range control.List[*apiregistrationv1.APIService](c.cfg.Client, kind, "") {
		if s := svc.Spec.Service; s != nil && s.Namespace == namespace && s.Name == service {
			keys = append(keys, control.Key{Name: svc.Name})
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, name string) (time.Duration, error) {
	c.mu.Lock()
	gv, local := c.served[name]
	known := c.served != nil
	c.mu.Unlock()
	svc, exists := control.Get[*apiregistrationv1.APIService](c.cfg.Client, kind, "", name)
	switch {
	case !exists && local:
		_, err := c.cfg.Client.Create(ctx, registration(gv))
		if apierrors.IsAlreadyExists(err) {
			err = nil
		}
		return 0, err
	case !exists:
		c.cfg.Forget(name)
		return 0, nil
	case svc.Spec.Service == nil:
		c.cfg.Forget(name)
		if known && !local && svc.Labels[managedLabel] != "" {
			uid := svc.UID
			err := c.cfg.Client.Delete(ctx, kind, "", name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
			return 0, control.IgnoreNotFound(err)
		}
		return 0, c.set(ctx, svc, apiregistrationv1.APIServiceCondition{Status: apiregistrationv1.ConditionTrue, Reason: "Local", Message: "Local APIServices are always available"})
	}
	cond := c.check(ctx, svc)
	return again, c.set(ctx, svc, cond)
}

// check returns the condition of an APIService with a Service: its texts are upstream's.
func (c *Controller) check(ctx context.Context, svc *apiregistrationv1.APIService) apiregistrationv1.APIServiceCondition {
	no := func(reason, format string, args ...any) apiregistrationv1.APIServiceCondition {
		return apiregistrationv1.APIServiceCondition{Status: apiregistrationv1.ConditionFalse, Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
	ref := svc.Spec.Service
	service, ok := control.Get[*corev1.Service](c.cfg.Client, kube.Service, ref.Namespace, ref.Name)
	if !ok {
		return no("ServiceNotFound", "service/%s in %q is not present", ref.Name, ref.Namespace)
	}
	if service.Spec.Type == corev1.ServiceTypeClusterIP {
		number := int32(443)
		if ref.Port != nil {
			number = *ref.Port
		}
		i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == number })
		if i < 0 {
			return no("ServicePortError", "service/%s in %q is not listening on port %d", ref.Name, ref.Namespace, number)
		}
		var found []*discoveryv1.EndpointSlice
		for _, s := range control.List[*discoveryv1.EndpointSlice](c.cfg.Client, kube.EndpointSlice, ref.Namespace) {
			if s.Labels[discoveryv1.LabelServiceName] == ref.Name {
				found = append(found, s)
			}
		}
		portName := service.Spec.Ports[i].Name
		if len(found) == 0 {
			return no("EndpointsNotFound", "cannot find endpointslices for service/%s in %q", ref.Name, ref.Namespace)
		}
		if !slices.ContainsFunc(found, func(s *discoveryv1.EndpointSlice) bool { return ready(s, portName) }) {
			return no("MissingEndpoints", "endpointslices for service/%s in %q have no addresses with port name %q", ref.Name, ref.Namespace, portName)
		}
	}
	if err := c.cfg.Look(ctx, svc); err != nil {
		return no("FailedDiscoveryCheck", "%v", err)
	}
	return apiregistrationv1.APIServiceCondition{Status: apiregistrationv1.ConditionTrue, Reason: "Passed", Message: "all checks passed"}
}

// ready reports whether a slice has a ready endpoint and the port of that name.
func ready(s *discoveryv1.EndpointSlice, portName string) bool {
	return slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }) &&
		slices.ContainsFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return p.Name != nil && *p.Name == portName && p.Port != nil })
}

// set writes the condition, when it is another one.
func (c *Controller) set(ctx context.Context, svc *apiregistrationv1.APIService, cond apiregistrationv1.APIServiceCondition) error {
	cond.Type, cond.LastTransitionTime = apiregistrationv1.Available, metav1.Now()
	out := svc.DeepCopy()
	helper.SetAPIServiceCondition(out, cond)
	if equality.Semantic.DeepEqual(svc.Status, out.Status) {
		return nil
	}
	_, err := c.cfg.Client.Update(ctx, out, "status")
	return control.IgnoreNotFound(err)
}

// registration returns the APIService of a version that the hub serves.
func registration(gv schema.GroupVersion) *apiregistrationv1.APIService {
	p, managed := priorities[gv.Group], "onstart"
	if p == 0 { // custom resources
		p, managed = customPriority, "true"
	}
	return &apiregistrationv1.APIService{
		TypeMeta:   metav1.TypeMeta{Kind: kind.Kind, APIVersion: apiregistrationv1.SchemeGroupVersion.String()},
		ObjectMeta: metav1.ObjectMeta{Name: gv.Version + "." + gv.Group, Labels: map[string]string{managedLabel: managed}},
		Spec:       apiregistrationv1.APIServiceSpec{Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: p, VersionPriority: versionPriority(gv, managed)},
	}
}

func versionPriority(gv schema.GroupVersion, managed string) int32 {
	switch {
	case managed == "true":
		return 100
	case gv.Group == "":
		return 1
	}
	return 15
}

// customPriority is that of groups of custom resources.
const customPriority = 1000

// priorities are upstream's priorities of its own groups.
var priorities = map[string]int32{
	"": 18000, "apps": 17800, "events.k8s.io": 17750, "authentication.k8s.io": 17700, "authorization.k8s.io": 17600,
	"autoscaling": 17500, "batch": 17400, "certificates.k8s.io": 17300, "networking.k8s.io": 17200, "policy": 17100,
	"rbac.authorization.k8s.io": 17000, "storage.k8s.io": 16800, "apiextensions.k8s.io": 16700, "admissionregistration.k8s.io": 16700,
	"scheduling.k8s.io": 16600, "coordination.k8s.io": 16500, "node.k8s.io": 16300, "discovery.k8s.io": 16200,
	"flowcontrol.apiserver.k8s.io": 16100, "internal.apiserver.k8s.io": 16000, "resource.k8s.io": 15900, "storagemigration.k8s.io": 15800,
}
