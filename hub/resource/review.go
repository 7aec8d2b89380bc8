package resource

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/kubernetes/pkg/apis/authentication"
	"k8s.io/kubernetes/pkg/apis/authorization"
	"k8s.io/kubernetes/pkg/apis/authorization/validation"

	"petrel.dev/petrel/internal/kube"
)

// review declares a kind that is answered and not stored. hub/registry/reviews has the handlers, which need what decides about
// requests. There is no list type: upstream has none either.
func review(gvk kube.GVK, plural, singular string, newObj func() kube.Object, rules Rules) *Kind {
	k := declare(gvk, plural, singular, newObj, nil)
	if gvk != kube.LocalSubjectAccessReview {
		k.clusterScoped()
	}
	k.virtual, k.Verbs = true, []string{"create"}
	k.NewList, k.Columns, k.Rules = nil, nil, rules
	return k
}

func selfSubjectReviewKind() *Kind {
	return review(kube.SelfSubjectReview, "selfsubjectreviews", "selfsubjectreview",
		func() kube.Object { return &authenticationv1.SelfSubjectReview{} }, strategy[authentication.SelfSubjectReview]{}.rules())
}

// tokenReviewKind has no validation, as upstream's: that a token is required is a 400 of the handler's.
func tokenReviewKind() *Kind {
	return review(kube.TokenReview, "tokenreviews", "tokenreview",
		func() kube.Object { return &authenticationv1.TokenReview{} }, strategy[authentication.TokenReview]{}.rules())
}

func subjectAccessReviewKind() *Kind {
	return review(kube.SubjectAccessReview, "subjectaccessreviews", "subjectaccessreview",
		func() kube.Object { return &authorizationv1.SubjectAccessReview{} },
		strategy[authorization.SubjectAccessReview]{validateCreate: validation.ValidateSubjectAccessReview}.rules())
}

func localSubjectAccessReviewKind() *Kind {
	return review(kube.LocalSubjectAccessReview, "localsubjectaccessreviews", "localsubjectaccessreview",
		func() kube.Object { return &authorizationv1.LocalSubjectAccessReview{} },
		strategy[authorization.LocalSubjectAccessReview]{validateCreate: validation.ValidateLocalSubjectAccessReview}.rules())
}

func selfSubjectAccessReviewKind() *Kind {
	return review(kube.SelfSubjectAccessReview, "selfsubjectaccessreviews", "selfsubjectaccessreview",
		func() kube.Object { return &authorizationv1.SelfSubjectAccessReview{} },
		strategy[authorization.SelfSubjectAccessReview]{validateCreate: validation.ValidateSelfSubjectAccessReview}.rules())
}

// selfSubjectRulesReviewKind has no validation, as upstream's: that a namespace is required is a 400 of the handler's.
func selfSubjectRulesReviewKind() *Kind {
	return review(kube.SelfSubjectRulesReview, "selfsubjectrulesreviews", "selfsubjectrulesreview",
		func() kube.Object { return &authorizationv1.SelfSubjectRulesReview{} }, strategy[authorization.SelfSubjectRulesReview]{}.rules())
}
