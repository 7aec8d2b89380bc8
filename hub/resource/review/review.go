package review

import (
	"k8s.io/kubernetes/pkg/apis/authentication"
	"k8s.io/kubernetes/pkg/apis/authorization"
	"k8s.io/kubernetes/pkg/apis/authorization/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// review declares a kind without a list type: upstream has none either.
func review(gvk kube.GVK, plural, singular string, rules resource.Rules) *resource.Kind {
	k := resource.Declare(gvk, plural, singular)
	if gvk != kube.LocalSubjectAccessReview {
		k.ClusterScoped()
	}
	k.AnswerOnly()
	k.Rules = rules
	return k
}

func selfSubjectReviewKind() *resource.Kind {
	return review(kube.SelfSubjectReview, "selfsubjectreviews", "selfsubjectreview", resource.Strategy[authentication.SelfSubjectReview]{}.Rules())
}

// tokenReviewKind has no validation, as upstream's: that a token is required is a 400 of the handler's.
func tokenReviewKind() *resource.Kind {
	return review(kube.TokenReview, "tokenreviews", "tokenreview", resource.Strategy[authentication.TokenReview]{}.Rules())
}

func subjectAccessReviewKind() *resource.Kind {
	return review(kube.SubjectAccessReview, "subjectaccessreviews", "subjectaccessreview",
		resource.Strategy[authorization.SubjectAccessReview]{ValidateCreate: validation.ValidateSubjectAccessReview}.Rules())
}

func localSubjectAccessReviewKind() *resource.Kind {
	return review(kube.LocalSubjectAccessReview, "localsubjectaccessreviews", "localsubjectaccessreview",
		resource.Strategy[authorization.LocalSubjectAccessReview]{ValidateCreate: validation.ValidateLocalSubjectAccessReview}.Rules())
}

func selfSubjectAccessReviewKind() *resource.Kind {
	return review(kube.SelfSubjectAccessReview, "selfsubjectaccessreviews", "selfsubjectaccessreview",
		resource.Strategy[authorization.SelfSubjectAccessReview]{ValidateCreate: validation.ValidateSelfSubjectAccessReview}.Rules())
}

// selfSubjectRulesReviewKind has no validation, as upstream's: that a namespace is required is a 400 of the handler's.
func selfSubjectRulesReviewKind() *resource.Kind {
	return review(kube.SelfSubjectRulesReview, "selfsubjectrulesreviews", "selfsubjectrulesreview", resource.Strategy[authorization.SelfSubjectRulesReview]{}.Rules())
}
