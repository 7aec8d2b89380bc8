package resource

import (
	"context"
	"fmt"
	"sync"
	"time"

	metatable "k8s.io/apimachinery/pkg/api/meta/table"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"

	"petrel.dev/petrel/internal/kube"
)

// generator has upstream's columns of every kind. It is built at the first request for a table, because a hub that only programs
// use never needs it.
var generator = sync.OnceValue(func() *printers.HumanReadableGenerator {
	return printers.NewTableGenerator().With(printersinternal.AddHandlers)
})

// table renders objs as kubectl shows them, wide columns included (their priority says so). Each row's Object.Object is
// the object itself: the caller puts there what the request's includeObject asks for.
func table(k *Kind, objs []kube.Object, opts *metav1.TableOptions) (*metav1.Table, error) {
	gen := printers.GenerateOptions{Wide: true, NoHeaders: opts != nil && opts.NoHeaders}
	out, err := columns(k, gen)
	if err != nil {
		return nil, err
	}
	for _, obj := range objs {
		in, err := internalOf(k, obj)
		if err != nil {
			return nil, err
		}
		one, err := generator().GenerateTable(in, gen)
		if err != nil {
			return nil, fmt.Errorf("table row of %s %s: %w", k.Singular, obj.GetName(), err)
		}
		for i := range one.Rows {
			one.Rows[i].Object = runtime.RawExtension{Object: obj}
		}
		out.Rows = append(out.Rows, one.Rows...)
	}
	return out, nil
}

// columns returns the table of an empty list.
func columns(k *Kind, gen printers.GenerateOptions) (*metav1.Table, error) {
	list, err := Scheme().New(schema.GroupVersionKind{Group: k.GVK.Group, Version: runtime.APIVersionInternal, Kind: k.GVK.Kind + "List"})
	if err != nil {
		return nil, err
	}
	out, err := generator().GenerateTable(list, gen)
	if err != nil {
		return nil, fmt.Errorf("table columns of %s: %w", k.Plural, err)
	}
	out.Rows = []metav1.TableRow{}
	return out, nil
}

func internalOf(k *Kind, obj kube.Object) (runtime.Object, error) {
	in, err := Scheme().New(schema.GroupVersionKind{Group: k.GVK.Group, Version: runtime.APIVersionInternal, Kind: k.GVK.Kind})
	if err != nil {
		return nil, err
	}
	if err := Scheme().Convert(obj, in, nil); err != nil {
		return nil, fmt.Errorf("convert %s %s: %w", k.Singular, obj.GetName(), err)
	}
	return in, nil
}

// NameAndCreation returns the columns of the kinds for which upstream has no printer, by its default table convertor.
func NameAndCreation(_ context.Context, objs []kube.Object, opts *metav1.TableOptions) (*metav1.Table, error) {
	t, err := nameAndAge(objs, opts)
	if err != nil {
		return nil, err
	}
	if len(t.ColumnDefinitions) > 0 {
		t.ColumnDefinitions[1].Name = "Created At"
	}
	for i, obj := range objs {
		t.Rows[i].Cells[1] = obj.GetCreationTimestamp().UTC().Format(time.RFC3339)
	}
	return t, nil
}

// nameAndAge returns the columns of a kind that declares none, as Kubernetes shows custom resources.
func nameAndAge(objs []kube.Object, opts *metav1.TableOptions) (*metav1.Table, error) {
	t := &metav1.Table{Rows: make([]metav1.TableRow, len(objs))}
	if opts == nil || !opts.NoHeaders {
		doc := metav1.ObjectMeta{}.SwaggerDoc()
		t.ColumnDefinitions = []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: doc["name"]},
			{Name: "Age", Type: "date", Description: doc["creationTimestamp"]},
		}
	}
	for i, obj := range objs {
		age := metatable.ConvertToHumanReadableDateType(obj.GetCreationTimestamp())
		t.Rows[i] = metav1.TableRow{Cells: []any{obj.GetName(), age}, Object: runtime.RawExtension{Object: obj}}
	}
	return t, nil
}
