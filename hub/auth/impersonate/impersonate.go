// Package impersonate lets a client act as another user, when it may: by the headers Impersonate-User, Impersonate-Uid,
// Impersonate-Group and Impersonate-Extra-KEY, with Kubernetes' checks and texts.
//
// There are several ways to have the right, which are tried in this order; the refusal is that of the first that applies.
//
//	associated-node, arbitrary-node  to be a node; nothing but its name is given
//	serviceaccount                   to be a ServiceAccount; nothing but its name is given
//	user-info                        to be any other user, in groups, with a UID and extra values; never in system:masters
//	legacy                           all of that, by the verb "impersonate"
//
// The first four need two rights: "impersonate:MODE" on the user, and "impersonate-on:MODE:VERB" on what the request is about.
// The fifth is "impersonate" on each thing that is asked for, whatever the request is about.
package impersonate

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"

	"petrel.dev/petrel/hub/auth"
)

const (
	prefix      = "Impersonate-"
	userHeader  = prefix + "User"
	uidHeader   = prefix + "Uid"
	groupHeader = prefix + "Group"
	extraPrefix = prefix + "Extra-"
)

// Asked reports whether a request has a header that asks for another user, or tries to.
func Asked(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// User returns the user that a request is to be treated as: by, who sent it, unless its headers ask for another. a is what the
// request is about. The error is a Status: 403 when policy does not allow it, 400 when headers make no sense. Headers
// are never ignored: a request that was meant to have fewer rights must not be served with the client's own.
func User(ctx context.Context, policy auth.Authorizer, by auth.User, a auth.Attributes, h http.Header) (auth.User, error) {
	if !Asked(h) {
		return by, nil
	}
	want, err := wanted(h)
	if err != nil {
		return auth.User{}, err
	}
	var refused error
	for _, m := range modes {
		if !m.applies(by, want) {
			continue
		}
		as, err := m.try(ctx, policy, by, a, want)
		if err == nil {
			as.ImpersonatedBy = &by
			return as, nil
		}
		if refused == nil {
			refused = err
		}
	}
	return auth.User{}, refused // never nil: the last mode applies to everybody
}

// wanted reads the headers.
func wanted(h http.Header) (want auth.User, err error) {
	for name, values := range h {
		switch {
		case name == userHeader:
			want.Name = h.Get(userHeader)
		case name == uidHeader:
			want.UID = h.Get(uidHeader)
		case name == groupHeader:
			want.Groups = slices.Clone(values)
		case strings.HasPrefix(name, extraPrefix):
			key := strings.ToLower(name[len(extraPrefix):])
			if plain, err := url.PathUnescape(key); err == nil {
				key = plain
			}
			if want.Extra == nil {
				want.Extra = map[string][]string{}
			}
			want.Extra[key] = append(want.Extra[key], values...)
		case strings.HasPrefix(name, prefix):
			return auth.User{}, apierrors.NewBadRequest(fmt.Sprintf("there is no header %.100q", name))
		}
	}
	if want.Name == "" {
		return auth.User{}, apierrors.NewBadRequest(fmt.Sprintf("requested uid %q, groups %q and extra %q without impersonating a user name", want.UID, want.Groups, want.Extra))
	}
	return want, nil
}

// nodeName returns the node that a user name is of; ok is false for every other name.
func nodeName(user string) (name string, ok bool) {
	name, ok = auth.NodeOf(auth.User{Name: user, Groups: []string{auth.GroupNodes}})
	return name, ok && len(validation.IsDNS1123Subdomain(name)) == 0
}

// accountName returns the ServiceAccount that a user name is of; ok is false for every other name.
func accountName(user string) (namespace, name string, ok bool) {
	namespace, name, ok = auth.AccountOf(user)
	return namespace, name, ok && len(validation.IsDNS1123Label(namespace)) == 0 && len(validation.IsDNS1123Subdomain(name)) == 0
}
