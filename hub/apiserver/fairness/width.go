package fairness

import (
	"context"
	"net/url"
	"strconv"

	"petrel.dev/petrel/hub/auth"
)

const (
	objectsPerSeat = 100 // as upstream
	maxWidth       = 10  // seats
)

// Width returns how many seats a request takes, which is about the objects whose keys begin with prefix ("": none that are stored): one
// for each hundred objects that it has to look at, at most ten.
func (g *Gate) Width(ctx context.Context, a *auth.Attributes, prefix string, query url.Values) int {
	switch {
	case prefix == "" || a.Name != "":
		return 1
	case a.Verb == "list" || a.Verb == "deletecollection":
	case a.Verb == "watch" && begins(query):
	default:
		return 1
	}
	n := g.cfg.Count(ctx, prefix)
	if limit, err := strconv.Atoi(query.Get("limit")); err == nil && limit > 0 && query.Get("labelSelector") == "" && query.Get("fieldSelector") == "" {
		n = min(n, limit)
	}
	return min(max(1, roundUp(n, objectsPerSeat)), maxWidth)
}

// begins reports whether a watch begins with all objects that exist.
func begins(query url.Values) bool {
	if s := query.Get("sendInitialEvents"); s != "" {
		return s != "false" && s != "0"
	}
	rv := query.Get("resourceVersion")
	return rv == "" || rv == "0"
}
