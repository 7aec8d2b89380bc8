package impersonate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/auth"
)

// mode is one way to have the right. Immutable.
type mode struct {
	name    string // "" for the legacy one, which is checked more loosely
	applies func(by, want auth.User) bool
}

var modes = []mode{
	{"associated-node", func(by, want auth.User) bool {
		node, ok := nodeName(want.Name)
		_, _, pod := accountName(by.Name)
		at := by.Extra["authentication.kubernetes.io/node-name"]
		return ok && pod && onlyNamed(want) && len(at) == 1 && at[0] == node
	}},
	{"arbitrary-node", func(_, want auth.User) bool {
		_, ok := nodeName(want.Name)
		return ok && onlyNamed(want)
	}},
	{"serviceaccount", func(_, want auth.User) bool {
		_, _, ok := accountName(want.Name)
		return ok && onlyNamed(want)
	}},
	{"user-info", func(_, want auth.User) bool {
		_, node := nodeName(want.Name)
		_, _, account := accountName(want.Name)
		return !node && !account
	}},
	{"", func(auth.User, auth.User) bool { return true }},
}

func onlyNamed(u auth.User) bool { return u.UID == "" && len(u.Groups) == 0 && len(u.Extra) == 0 }

// try returns the user that want becomes, or the refusal.
func (m mode) try(ctx context.Context, policy auth.Authorizer, by auth.User, a auth.Attributes, want auth.User) (auth.User, error) {
	verb := "impersonate"
	if m.name != "" {
		verb += ":" + m.name
		on := a
		on.Verb = "impersonate-on:" + m.name + ":" + a.Verb
		if err := check(ctx, policy, by, on); err != nil {
			return auth.User{}, err
		}
	}
	if err := m.checkUser(ctx, policy, by, verb, want); err != nil {
		return auth.User{}, err
	}
	as := want
	namespace, _, isAccount := accountName(want.Name)
	_, isNode := nodeName(want.Name)
	switch {
	case isAccount && len(want.Groups) == 0:
		as.Groups = auth.AccountGroups(namespace)
	case isNode && m.name != "":
		as.Groups = []string{auth.GroupNodes}
	}
	switch {
	case as.Name == auth.Anonymous.Name:
		as.Groups = with(as.Groups, auth.GroupUnauthenticated)
	case !slices.Contains(as.Groups, auth.GroupUnauthenticated):
		as.Groups = with(as.Groups, auth.GroupAuthenticated)
	}
	return as, nil
}

// checkUser checks the right to each thing that is wanted.
func (m mode) checkUser(ctx context.Context, policy auth.Authorizer, by auth.User, verb string, want auth.User) error {
	group := "" // of users and groups; uids and extra values have always been in authentication.k8s.io
	const other = "authentication.k8s.io"
	if m.name != "" {
		group = other
	}
	named := auth.Attributes{Verb: verb, Resource: true, APIGroup: group, APIVersion: "v1", Plural: "users", Name: want.Name}
	if node, ok := nodeName(want.Name); ok && m.name != "" {
		named.Plural, named.Name = "nodes", node
		if m.name == "associated-node" {
			named.Name = "*" // the right is to be the node that one is on, whichever it is
		}
	}
	if namespace, name, ok := accountName(want.Name); ok {
		named.Plural, named.Namespace, named.Name = "serviceaccounts", namespace, name
	}
	if err := check(ctx, policy, by, named); err != nil {
		return err
	}
	if want.UID != "" {
		if err := check(ctx, policy, by, auth.Attributes{Verb: verb, Resource: true, APIGroup: other, APIVersion: "v1", Plural: "uids", Name: want.UID}); err != nil {
			return err
		}
	}
	if err := m.checkGroups(ctx, policy, by, auth.Attributes{Verb: verb, Resource: true, APIGroup: group, APIVersion: "v1", Plural: "groups"}, want.Groups); err != nil {
		return err
	}
	return m.checkExtra(ctx, policy, by, auth.Attributes{Verb: verb, Resource: true, APIGroup: other, APIVersion: "v1", Plural: "userextras"}, want.Extra)
}

func (m mode) checkGroups(ctx context.Context, policy auth.Authorizer, by auth.User, a auth.Attributes, groups []string) error {
	if m.name != "" && slices.Contains(groups, "") {
		return auth.Forbidden(by, a, "impersonating the empty string group is not allowed")
	}
	if m.name != "" && slices.Contains(groups, auth.GroupMasters) {
		a.Name = auth.GroupMasters
		return auth.Forbidden(by, a, "impersonating the system:masters group is not allowed")
	}
	for _, g := range groups {
		a.Name = g
		if err := check(ctx, policy, by, a); err != nil {
			return err
		}
	}
	return nil
}

func (m mode) checkExtra(ctx context.Context, policy auth.Authorizer, by auth.User, a auth.Attributes, extra map[string][]string) error {
	if m.name != "" {
		if err := validExtra(extra); err != nil {
			return auth.Forbidden(by, a, err.Error())
		}
	}
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		a.Subresource = key
		for _, value := range extra[key] {
			a.Name = value
			if err := check(ctx, policy, by, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// validExtra refuses, in upstream's words, what the legacy mode has always let through.
func validExtra(extra map[string][]string) error {
	for key, values := range extra {
		switch err := utilvalidation.IsDomainPrefixedPath(field.NewPath("extra", "key"), key).ToAggregate(); {
		case key == "":
			return errors.New("impersonating the empty string key in extra is not allowed")
		case err != nil:
			return fmt.Errorf("impersonating an invalid key in extra is not allowed: %w", err)
		case key != strings.ToLower(key):
			return fmt.Errorf("impersonating a non-lowercase key in extra is not allowed: %q", key)
		case len(values) == 0:
			return errors.New("impersonating empty values in extra is not allowed")
		case slices.Contains(values, ""):
			return errors.New("impersonating the empty string value in extra is not allowed")
		}
	}
	return nil
}

// check returns nil when by may do a, otherwise the refusal.
func check(ctx context.Context, policy auth.Authorizer, by auth.User, a auth.Attributes) error {
	allowed, reason, err := policy.Authorize(ctx, by, a)
	switch {
	case err != nil:
		return auth.Forbidden(by, a, err.Error())
	case !allowed:
		return auth.Forbidden(by, a, reason)
	}
	return nil
}

// with returns groups with one more, unless it is in them.
func with(groups []string, one string) []string {
	if slices.Contains(groups, one) {
		return groups
	}
	return append(slices.Clone(groups), one)
}
