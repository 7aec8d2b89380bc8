package auth

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRulesForAgreesWithAuthorize checks for each sort of user that what is listed is allowed, and that the list is the whole of it.
func TestRulesForAgreesWithAuthorize(t *testing.T) {
	const reviews = "create authentication.k8s.io [selfsubjectreviews], create authorization.k8s.io [selfsubjectaccessreviews selfsubjectrulesreviews]"
	for _, test := range []struct {
		name      string
		groups    []string
		resources string
		paths     int
	}{
		{"anonymous", Anonymous.Groups, "", 0},
		{"a user", []string{"system:authenticated"}, reviews, 13},
		{"a pod", []string{"system:serviceaccounts", "system:authenticated"}, reviews, 15},
		{"the administrator", []string{"system:masters", "system:authenticated"}, "* * [*]", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := User{Name: "u", Groups: test.groups}
			allows := func(a Attributes) bool {
				ok, _, err := MastersOnly{}.Authorize(t.Context(), u, a)
				return ok && err == nil
			}
			listed := MastersOnly{}.RulesFor(t.Context(), u, "default")
			var resources, paths []string
			for _, r := range listed.ResourceRules {
				resources = append(resources, fmt.Sprintf("%s %s %s", strings.Join(r.Verbs, ","), strings.Join(r.APIGroups, ","), r.Resources))
				for _, plural := range r.Resources {
					if !allows(Attributes{Resource: true, Verb: r.Verbs[0], APIGroup: r.APIGroups[0], Plural: plural}) {
						t.Errorf("%+v is listed and refused", r)
					}
				}
			}
			for _, r := range listed.NonResourceRules {
				paths = append(paths, r.NonResourceURLs...)
				for _, path := range r.NonResourceURLs {
					if !allows(Attributes{Verb: r.Verbs[0], Path: strings.ReplaceAll(path, "*", "x")}) {
						t.Errorf("%s is listed and refused", path)
					}
				}
			}
			if diff := cmp.Diff(test.resources, strings.Join(resources, ", ")); diff != "" || len(paths) != test.paths {
				t.Errorf("%s%d paths, want %d", diff, len(paths), test.paths)
			}
			if listed.ResourceRules == nil || listed.NonResourceRules == nil || listed.Incomplete {
				t.Errorf("clients expect complete lists, not null: %+v", listed)
			}
			if slices.Contains(paths, "*") {
				return
			}
			for _, a := range []Attributes{
				{Resource: true, Verb: "create", APIGroup: "authentication.k8s.io", Plural: "tokenreviews"},
				{Resource: true, Verb: "create", APIGroup: "authorization.k8s.io", Plural: "subjectaccessreviews"},
				{Resource: true, Verb: "create", APIGroup: "authorization.k8s.io", Plural: "localsubjectaccessreviews"},
				{Resource: true, Verb: "get", Plural: "pods"},
				{Verb: "get", Path: "/metrics"},
			} {
				if allows(a) {
					t.Errorf("%+v is allowed and not listed", a)
				}
			}
		})
	}
}
