package structural

import (
	"context"
	"fmt"
	"math"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
)

// maxText bounds the texts of an object in bytes, more than what the store takes: a default is filled into each element of a list, so that
// a small body may become an object that nothing could write.
const maxText = 8 << 20

// textOf returns how many bytes the texts in v have.
func textOf(v any) (n int) {
	switch v := v.(type) {
	case string:
		return len(v)
	case map[string]any:
		for key, e := range v {
			n += len(key) + textOf(e)
		}
	case []any:
		for _, e := range v {
			n += textOf(e)
		}
	}
	return n
}

// Validate returns what is wrong with an object that has been pruned and defaulted. old is what it replaces, nil for a new one: what
// was wrong before, and has not been touched, is left alone.
func (s *Schema) Validate(ctx context.Context, obj, old map[string]any) field.ErrorList {
	if errs := s.typeMeta(obj); len(errs) > 0 {
		return errs
	}
	if textOf(obj) > maxText {
		return field.ErrorList{field.Forbidden(nil, fmt.Sprintf("with its defaults the object has more than %d bytes", maxText))}
	}
	if errs := s.costs.affordable(nil, obj); len(errs) > 0 {
		return errs
	}
	var errs field.ErrorList
	var ratchet *common.CorrelatedObject
	if old == nil {
		errs = validation.ValidateCustomResource(nil, obj, s.whole)
	} else {
		ratchet = common.NewCorrelatedObject(obj, old, &model.Structural{Structural: s.fields})
		errs = validation.ValidateCustomResourceUpdate(nil, obj, old, s.whole, validation.WithRatcheting(ratchet))
	}
	errs = append(errs, s.scaleSpec(obj)...)
	errs = append(errs, s.scaleStatus(obj)...)
	errs = append(errs, objectmeta.Validate(nil, obj, s.fields, false)...)
	errs = append(errs, s.lists(obj, old)...)
	return append(errs, s.expressions(ctx, errs, obj, old, ratchet)...)
}

// ValidateStatus is Validate for an update of the subresource status: of the schema only its part about the status counts.
func (s *Schema) ValidateStatus(ctx context.Context, obj, old map[string]any) field.ErrorList {
	if errs := s.typeMeta(obj); len(errs) > 0 {
		return errs
	}
	ratchet := common.NewCorrelatedObject(obj, old, &model.Structural{Structural: s.fields})
	var errs field.ErrorList
	if status, ok := obj["status"]; ok && s.status != nil {
		if errs := s.costs.field("status").affordable(field.NewPath("status"), status); len(errs) > 0 {
			return errs
		}
		var opts []validation.ValidationOption
		if s.fields != nil {
			opts = append(opts, validation.WithRatcheting(ratchet.Key("status")))
		}
		errs = validation.ValidateCustomResourceUpdate(field.NewPath("status"), status, old["status"], s.status, opts...)
	}
	errs = append(errs, s.scaleStatus(obj)...)
	errs = append(errs, s.lists(obj, old)...)
	return append(errs, s.expressions(ctx, errs, obj, old, ratchet)...)
}

// typeMeta refuses another kind, or another version: a webhook may have returned anything.
func (s *Schema) typeMeta(obj map[string]any) (errs field.ErrorList) {
	if kind, _, _ := unstructured.NestedString(obj, "kind"); kind != s.kind {
		errs = append(errs, field.Invalid(field.NewPath("kind"), kind, "must be "+s.kind))
	}
	if v, _, _ := unstructured.NestedString(obj, "apiVersion"); v != s.apiVersion {
		errs = append(errs, field.Invalid(field.NewPath("apiVersion"), v, "must be "+s.apiVersion))
	}
	return errs
}

// lists checks the keys of maps and the elements of sets, unless the old object was wrong already.
func (s *Schema) lists(obj, old map[string]any) field.ErrorList {
	errs := listtype.ValidateListSetsAndMaps(nil, s.fields, obj)
	if len(errs) > 0 && old != nil && len(listtype.ValidateListSetsAndMaps(nil, s.fields, old)) > 0 {
		return nil
	}
	return errs
}

// expressions evaluates the CEL rules, unless found shows that the object has not the shape that they rely on.
func (s *Schema) expressions(ctx context.Context, found field.ErrorList, obj, old map[string]any, ratchet *common.CorrelatedObject) field.ErrorList {
	if s.rules == nil {
		return nil
	}
	for _, e := range found {
		switch e.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return field.ErrorList{field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation")}
		}
	}
	var opts []cel.Option
	var before any // not a nil map: the rules of a transition are skipped only for nil
	if old != nil {
		before, opts = old, append(opts, cel.WithRatcheting(ratchet))
	}
	errs, _ := s.rules.Validate(ctx, nil, s.fields, obj, before, celconfig.RuntimeCELCostBudget, opts...)
	return errs
}

func (s *Schema) scaleSpec(obj map[string]any) field.ErrorList {
	if s.scale == nil {
		return nil
	}
	return replicas(obj, s.scale.SpecReplicasPath)
}

func (s *Schema) scaleStatus(obj map[string]any) field.ErrorList {
	if s.scale == nil {
		return nil
	}
	errs := replicas(obj, s.scale.StatusReplicasPath)
	if p := s.scale.LabelSelectorPath; p != nil {
		if selector, _, err := unstructured.NestedString(obj, Path(*p)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*p), selector, err.Error()))
		}
	}
	return errs
}

// replicas checks a number that a Scale shows.
func replicas(obj map[string]any, path string) field.ErrorList {
	n, _, err := unstructured.NestedInt64(obj, Path(path)...)
	at := field.NewPath(path)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(at, n, err.Error())}
	case n < 0:
		return field.ErrorList{field.Invalid(at, n, "should be a non-negative integer")}
	case n > math.MaxInt32:
		return field.ErrorList{field.Invalid(at, n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32))}
	}
	return nil
}
