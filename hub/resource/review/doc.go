// Package review declares the reviews of authentication.k8s.io and authorization.k8s.io: questions that are answered and not
// stored. hub/registry/reviews has the handlers, which need what decides about requests.
package review

import (
	_ "k8s.io/kubernetes/pkg/apis/authentication/install"
	_ "k8s.io/kubernetes/pkg/apis/authorization/install"

	"petrel.dev/petrel/hub/resource"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind {
	return []*resource.Kind{
		selfSubjectReviewKind(),
		tokenReviewKind(),
		localSubjectAccessReviewKind(),
		selfSubjectAccessReviewKind(),
		selfSubjectRulesReviewKind(),
		subjectAccessReviewKind(),
	}
}
