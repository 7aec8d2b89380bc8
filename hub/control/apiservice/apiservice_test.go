package apiservice

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// fixture is a controller with what it looks at.
type fixture struct {
	t       *testing.T
	client  *controltest.Client
	served  chan []schema.GroupVersion
	looks   int
	lookErr error
}

func start(t *testing.T, objs ...kube.Object) *fixture {
	f := &fixture{t: t, client: controltest.New(t, objs...), served: make(chan []schema.GroupVersion)}
	c := New(Config{Client: f.client, Forget: func(string) {}, Look: func(context.Context, *apiregistrationv1.APIService) error {
		f.looks++
		return f.lookErr
	}, Served: func(ctx context.Context) iter.Seq[[]schema.GroupVersion] {
		return func(yield func([]schema.GroupVersion) bool) {
			for {
				select {
				case <-ctx.Done():
					return
				case v := <-f.served:
					if !yield(v) {
						return
					}
				}
			}
		}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return f
}

// condition returns the status, reason and message of an APIService.
func (f *fixture) condition(name string) string {
	f.t.Helper()
	synctest.Wait()
	svc, ok := control.Get[*apiregistrationv1.APIService](f.client, kind, "", name)
	if !ok {
		return "absent"
	}
	var out []string
	for _, c := range svc.Status.Conditions {
		out = append(out, string(c.Type)+"="+string(c.Status)+" "+c.Reason+": "+c.Message)
	}
	return strings.Join(out, "; ")
}

func remote(name string) *apiregistrationv1.APIService {
	version, group, _ := strings.Cut(name, ".")
	a := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: apiregistrationv1.APIServiceSpec{
		Group: group, Version: version, Service: &apiregistrationv1.ServiceReference{Namespace: "ns", Name: "api"}}}
	a.SetGroupVersionKind(kind)
	return a
}

func (f *fixture) put(objs ...kube.Object) {
	for _, o := range objs {
		f.client.Put(o)
	}
}

// TestConditions walks an APIService through all that can be wrong, until its server answers, and no longer does.
func TestConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, remote("v1.x.example.com"))
		expect := func(want string) {
			t.Helper()
			if got := f.condition("v1.x.example.com"); got != want {
				t.Errorf("%s; want %s", got, want)
			}
		}
		expect(`Available=False ServiceNotFound: service/api in "ns" is not present`)
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "api"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Name: "web", Port: 80}}}}
		f.put(svc)
		expect(`Available=False ServicePortError: service/api in "ns" is not listening on port 443`)
		svc = svc.DeepCopy()
		svc.Spec.Ports = []corev1.ServicePort{{Name: "https", Port: 443}}
		f.put(svc)
		expect(`Available=False EndpointsNotFound: cannot find endpointslices for service/api in "ns"`)
		no, name, port := false, "https", int32(8443)
		slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "api-1", Labels: map[string]string{discoveryv1.LabelServiceName: "api"}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}}}, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}}
		f.put(slice)
		expect(`Available=False MissingEndpoints: endpointslices for service/api in "ns" have no addresses with port name "https"`)
		f.lookErr = errors.New("failing or missing response from there")
		slice = slice.DeepCopy()
		slice.Endpoints[0].Conditions.Ready = nil
		f.put(slice)
		expect("Available=False FailedDiscoveryCheck: failing or missing response from there")
		f.lookErr = nil
		time.Sleep(again)
		expect("Available=True Passed: all checks passed")
		looks := f.looks
		time.Sleep(again)
		synctest.Wait()
		if f.looks == looks {
			t.Error("a server is looked at once and never again")
		}
		before := f.client.Revision()
		time.Sleep(again)
		synctest.Wait()
		if after := f.client.Revision(); after != before {
			t.Errorf("nothing has changed, and there are %d writes", after-before)
		}
	})
}

// TestLocal checks that what the hub serves is registered with upstream's priorities, again when a user deletes it, that custom
// groups go with their kinds, and that nothing else is asked or deleted.
func TestLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := remote("v1.mine.example.com")
		own.Spec.Service = nil
		f := start(t, own)
		apps, custom := schema.GroupVersion{Group: "apps", Version: "v1"}, schema.GroupVersion{Group: "stable.example.com", Version: "v2"}
		f.served <- []schema.GroupVersion{{Version: "v1"}, apps, custom}
		const local = "Available=True Local: Local APIServices are always available"
		for name, want := range map[string][3]any{"v1.": {int32(18000), int32(1), "onstart"}, "v1.apps": {int32(17800), int32(15), "onstart"}, "v2.stable.example.com": {int32(1000), int32(100), "true"}} {
			if got := f.condition(name); got != local {
				t.Errorf("%s: %s", name, got)
			}
			svc, _ := control.Get[*apiregistrationv1.APIService](f.client, kind, "", name)
			if got := [3]any{svc.Spec.GroupPriorityMinimum, svc.Spec.VersionPriority, svc.Labels[managedLabel]}; got != want {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
		if err := f.client.Delete(t.Context(), kind, "", "v1.apps", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := f.condition("v1.apps"); got != local {
			t.Errorf("after a deletion: %s", got)
		}
		f.served <- []schema.GroupVersion{{Version: "v1"}, apps}
		if got := f.condition("v2.stable.example.com"); got != "absent" {
			t.Errorf("a custom group that is gone: %s", got)
		}
		if got := f.condition("v1.mine.example.com"); got != local {
			t.Errorf("a user's own: %s", got)
		}
		if f.looks != 0 {
			t.Errorf("local ones were asked %d times", f.looks)
		}
		var names []string
		for _, svc := range control.List[*apiregistrationv1.APIService](f.client, kind, "") {
			names = append(names, svc.Name)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != "v1. v1.apps v1.mine.example.com" {
			t.Errorf("left: %s", got)
		}
	})
}
