// Package apiregistration declares the kinds of apiregistration.k8s.io.
package apiregistration

import (
	"context"
	"fmt"
	"slices"

	metatable "k8s.io/apimachinery/pkg/api/meta/table"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/install"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// The group has a scheme of its own upstream, because the aggregator is a server of its own there.
func init() { install.Install(resource.Scheme()) }

// Kinds returns the declarations.
func Kinds() []*resource.Kind { return []*resource.Kind{apiServiceKind()} }

func apiServiceKind() *resource.Kind {
	k := resource.Declare(apiregistrationv1.SchemeGroupVersion.WithKind("APIService"), "apiservices", "apiservice")
	k.ClusterScoped()
	k.Categories = []string{"api-extensions"}
	k.Columns = columns
	s := resource.Strategy[apiregistration.APIService]{
		PrepareCreate: func(a *apiregistration.APIService) {
			a.Status = apiregistration.APIServiceStatus{}
			if a.Spec.Service == nil { // served by the hub itself
				apiregistration.SetAPIServiceCondition(a, apiregistration.NewLocalAvailableAPIServiceCondition())
			}
		},
		PrepareUpdate:     func(a, old *apiregistration.APIService) { a.Status = *old.Status.DeepCopy() },
		ValidateCreate:    validation.ValidateAPIService,
		ValidateUpdate:    validation.ValidateAPIServiceUpdate,
		ConditionalUpdate: true,
	}
	k.Rules = s.Rules()
	s.PrepareUpdate = func(a, old *apiregistration.APIService) {
		copied := old.DeepCopy()
		a.Spec = copied.Spec
		metav1.ResetObjectMetaForStatus(&a.ObjectMeta, &copied.ObjectMeta)
	}
	s.ValidateUpdate = validation.ValidateAPIServiceStatusUpdate
	k.Subresources["status"] = s.Status(k)
	return k
}

func columns(_ context.Context, objs []kube.Object, opts *metav1.TableOptions) (*metav1.Table, error) {
	t := &metav1.Table{Rows: make([]metav1.TableRow, len(objs))}
	if opts == nil || !opts.NoHeaders {
		doc := metav1.ObjectMeta{}.SwaggerDoc()
		t.ColumnDefinitions = []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: doc["name"]},
			{Name: "Service", Type: "string", Description: "The reference to the service that hosts this API endpoint."},
			{Name: "Available", Type: "string", Description: "Whether this service is available."},
			{Name: "Age", Type: "string", Description: doc["creationTimestamp"]},
		}
	}
	for i, obj := range objs {
		a, ok := obj.(*apiregistrationv1.APIService)
		if !ok {
			return nil, fmt.Errorf("table row of an APIService: %T", obj)
		}
		service := "Local"
		if s := a.Spec.Service; s != nil {
			service = s.Namespace + "/" + s.Name
		}
		age := metatable.ConvertToHumanReadableDateType(a.CreationTimestamp)
		t.Rows[i] = metav1.TableRow{Cells: []any{a.Name, service, available(a), age}, Object: runtime.RawExtension{Object: obj}}
	}
	return t, nil
}

func available(a *apiregistrationv1.APIService) string {
	i := slices.IndexFunc(a.Status.Conditions, func(c apiregistrationv1.APIServiceCondition) bool {
		return c.Type == apiregistrationv1.Available
	})
	if i < 0 {
		return string(apiregistrationv1.ConditionUnknown)
	}
	c := a.Status.Conditions[i]
	if c.Status == apiregistrationv1.ConditionTrue || c.Reason == "" {
		return string(c.Status)
	}
	return fmt.Sprintf("%s (%s)", c.Status, c.Reason)
}
