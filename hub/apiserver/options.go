package apiserver

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metascheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	listvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/registry"
)

// decodeQuery fills opts from the query string.
func (x *exchange) decodeQuery(opts runtime.Object) error {
	if err := metascheme.ParameterCodec.DecodeParameters(x.query, metav1.SchemeGroupVersion, opts); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

func (x *exchange) createOptions() (*metav1.CreateOptions, error) {
	o := &metav1.CreateOptions{}
	if err := x.decodeQuery(o); err != nil {
		return nil, err
	}
	o.FieldManager = x.manager(o.FieldManager)
	return o, registry.InvalidOptions("CreateOptions", validation.ValidateCreateOptions(o))
}

func (x *exchange) updateOptions() (*metav1.UpdateOptions, error) {
	o := &metav1.UpdateOptions{}
	if err := x.decodeQuery(o); err != nil {
		return nil, err
	}
	o.FieldManager = x.manager(o.FieldManager)
	return o, registry.InvalidOptions("UpdateOptions", validation.ValidateUpdateOptions(o))
}

func (x *exchange) patchOptions(pt types.PatchType) (*metav1.PatchOptions, error) {
	o := &metav1.PatchOptions{}
	if err := x.decodeQuery(o); err != nil {
		return nil, err
	}
	if err := registry.InvalidOptions("PatchOptions", validation.ValidatePatchOptions(o, pt)); err != nil {
		return nil, err
	}
	o.FieldManager = x.manager(o.FieldManager)
	return o, nil
}

// deleteOptions returns those of the body, or of the query when there is no body.
func (x *exchange) deleteOptions(body []byte) (*metav1.DeleteOptions, error) {
	o := &metav1.DeleteOptions{}
	if len(body) == 0 {
		if err := x.decodeQuery(o); err != nil {
			return nil, err
		}
	} else {
		s, form, err := x.s.codec.Input(x.r.Header.Get("Content-Type"), media.All, false)
		if err != nil {
			return nil, err
		}
		gvk := corev1DeleteOptions
		obj, _, err := x.parse(s, form, body, &gvk, o)
		if apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsTooManyRequests(err) {
			return nil, err
		}
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if obj != runtime.Object(o) {
			return nil, apierrors.NewBadRequest("decoded object cannot be converted to DeleteOptions")
		}
	}
	o.IgnoreStoreReadErrorWithClusterBreakingPotential = nil
	return o, registry.InvalidOptions("DeleteOptions", validation.ValidateDeleteOptions(o))
}

// listOptions returns those of list, watch and deletecollection. They are checked in upstream's internal form, which parses the
// selectors, and returned in the public one.
func (x *exchange) listOptions() (*metav1.ListOptions, error) {
	in := internalversion.ListOptions{}
	if err := x.decodeQuery(&in); err != nil {
		return nil, err
	}
	in.Watch = x.verb == "watch"
	internalversion.SetListOptionsDefaults(&in, true)
	if err := registry.InvalidOptions("ListOptions", listvalidation.ValidateListOptions(&in, true)); err != nil {
		return nil, err
	}
	if x.t.Name != "" { // watch of one object, the deprecated way
		byName := fields.OneTermEqualSelector("metadata.name", x.t.Name)
		if in.FieldSelector != nil && !in.FieldSelector.Empty() {
			if n, ok := in.FieldSelector.RequiresExactMatch("metadata.name"); !ok || n != x.t.Name {
				return nil, apierrors.NewBadRequest("fieldSelector metadata.name doesn't match requested name")
			}
		} else {
			in.FieldSelector = byName
		}
	}
	out := &metav1.ListOptions{}
	if err := internalversion.Convert_internalversion_ListOptions_To_v1_ListOptions(&in, out, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return out, nil
}

// corev1DeleteOptions is the kind of a body without apiVersion and kind; every group version has DeleteOptions too.
var corev1DeleteOptions = schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"}
