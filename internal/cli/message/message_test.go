package message

import (
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/cli/nearest"
)

func TestMessage(t *testing.T) {
	status := func(text string) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonInvalid, Message: text}}
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("plain"), "plain"},
		{errors.Join(status("one"), status("two")), "one (Invalid)\ntwo (Invalid)"},
		{status("spec: wrong"), "spec: wrong (Invalid)"},
		{status(` "" is invalid: patch: Invalid value: "{\"a\": {\"b\": 1}}": json: no such`), "the change does not fit the type: json: no such (Invalid)"},
		{errors.Join(errors.New("a"), &nearest.Error{Err: status("b"), Hint: func() string { return "; did you mean c?" }}), "a\nb (Invalid); did you mean c?"},
	} {
		if got := Of(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}
