// Package status makes Kubernetes' answers of errors that have none.
package status

import (
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Plain returns what Kubernetes answers for an error without a status: a 500 with nothing but its text.
func Plain(text string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: text,
	}}
}

// Or returns err when it is a status, and otherwise one with its text alone, as Kubernetes does.
func Or(err error) error {
	if _, ok := err.(apierrors.APIStatus); ok {
		return err
	}
	return Plain(err.Error())
}
