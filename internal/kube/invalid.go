package kube

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// maxErrors bounds the errors that one refusal names.
	maxErrors = 500
	// maxErrorText bounds their text, in bytes, beside the first error's: it may quote the whole body.
	maxErrorText = 128 << 10
)

// NewInvalid returns the Status 422 of an object that breaks rules, with Kubernetes' text. It names the first errors only: a body of
// 3 MiB can make millions, and upstream joins them by copying what it has so far for each.
func NewInvalid(kind schema.GroupKind, name string, errs field.ErrorList) *apierrors.StatusError {
	named := First(errs)
	err := apierrors.NewInvalid(kind, name, named)
	if left := len(errs) - len(named); left > 0 {
		err.ErrStatus.Message += fmt.Sprintf(", and %d more", left)
	}
	return err
}

// First returns as many errors from the beginning of errs as one text should name.
func First(errs field.ErrorList) field.ErrorList {
	size := 0
	for i, err := range errs {
		if i == maxErrors || size > maxErrorText {
			return errs[:i]
		}
		size += len(err.Error())
	}
	return errs
}
