package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// Clients match on these texts: they are Kubernetes' own.
const (
	lockText         = "the object has been modified; please apply your changes to the latest version and try again"
	listExpiredText  = "The resourceVersion for the provided list is too old."
	continueOldText  = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
	versionAtNewText = "resourceVersion should not be set on objects to be created"
)

func conflict(k *resource.Kind, name string, err error) error {
	return apierrors.NewConflict(k.Resource(), name, err)
}

// modified returns the conflict of an optimistic lock: the object has another revision than the write was made from.
func modified(k *resource.Kind, name string) error {
	return conflict(k, name, errors.New(lockText))
}

func notFound(k *resource.Kind, name string) error {
	return apierrors.NewNotFound(k.Resource(), name)
}

func invalid(k *resource.Kind, name string, errs field.ErrorList) error {
	return kube.NewInvalid(k.GVK.GroupKind(), name, errs)
}

// uidMismatch returns the conflict of a body that names another object of the same name by its uid.
func uidMismatch(k *resource.Kind, name string, want, have types.UID) error {
	//lint:ignore ST1005 upstream's text
	return conflict(k, name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", want, have))
}

// tooLarge returns the 504 for a revision that the store has not reached; clients recognize it by its cause.
func tooLarge(asked, current sqlstore.Revision) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", asked, current), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version",
	}}
	return err
}

// badRevision returns the 422 for a resourceVersion that is no revision.
func badRevision(s string, err error) error {
	return kube.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "",
		field.ErrorList{field.Invalid(field.NewPath("resourceVersion"), s, err.Error())})
}

// storeFailure returns the status of an error that is not about the object: the store is closed or its disk is full, or the
// request's time is over.
func storeFailure(k *resource.Kind, verb string, err error) error {
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &status):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return apierrors.NewServerTimeout(k.Resource(), verb, 2)
	case errors.Is(err, sqlstore.ErrClosed):
		return apierrors.NewServiceUnavailable("the hub is shutting down")
	}
	if full := (*sqlstore.FullError)(nil); errors.As(err, &full) {
		return storeFull(full)
	}
	return apierrors.NewInternalError(err)
}

// reasonStoreFull is the reason of a refusal because the store is full; Kubernetes has none of its own for that.
const reasonStoreFull metav1.StatusReason = "InsufficientStorage"

// storeFull returns a 507: neither the request nor the hub is at fault, and trying again alone does not help.
func storeFull(full *sqlstore.FullError) error {
	text := full.Error()
	if full.Tenant != "" {
		text = "namespace " + text
	}
	if full.Limit > 0 {
		text += " (petrel hub --store-limit)"
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: reasonStoreFull, Message: text,
	}}
}
