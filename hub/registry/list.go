package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/sqlstore"
)

// List returns stored bytes, all as of one revision.
func (r *Registry) List(ctx context.Context, t resource.Target, opts *metav1.ListOptions) (*ListResult, error) {
	res, _, err := r.list(ctx, t, opts)
	return res, err
}

// list returns a list with the entries that it was made of.
func (r *Registry) list(ctx context.Context, t resource.Target, opts *metav1.ListOptions) (*ListResult, []sqlstore.Entry, error) {
	if opts == nil {
		opts = &metav1.ListOptions{}
	}
	if _, err := served(t, "list"); err != nil {
		return nil, nil, err
	}
	if err := checkListOptions(opts, false); err != nil {
		return nil, nil, err
	}
	if t.Kind.Objects != nil {
		res, err := r.computedList(t, opts)
		return res, nil, err
	}
	sel, err := r.selectionOf(t, opts)
	if err != nil {
		return nil, nil, err
	}
	after, at, err := r.listFrom(ctx, sel, opts)
	if err != nil {
		return nil, nil, err
	}
	page, open, err := r.page(ctx, sel, after, int(min(max(opts.Limit, 0), 1<<30)), at)
	if err != nil {
		return nil, nil, listFailure(sel, opts, after, err)
	}
	res := r.listed(t.Kind, page, open)
	if page.More {
		res.Continue = continueToken(sel, page.Entries[len(page.Entries)-1].Key+"\x00", page.Rev)
		if sel.plain() {
			left := int64(page.Remain)
			res.Remaining = &left
		}
	}
	return res, page.Entries, nil
}

// listed returns the objects of a page as k shows them. What of them is encrypted, or in another version, is so until it is shown.
func (r *Registry) listed(k *resource.Kind, page sqlstore.Page, open sqlstore.Opener) *ListResult {
	res := &ListResult{ResourceVersion: objects.FormatRevision(page.Rev), Items: make([]json.RawMessage, 0, len(page.Entries))}
	for _, e := range page.Entries {
		res.Items = append(res.Items, e.Value)
	}
	if open == nil && k.AsStored() {
		return res
	}
	res.Show = func(ctx context.Context, from, to int) (items []json.RawMessage, err error) {
		entries := page.Entries[from:to]
		if open != nil {
			entries = slices.Clone(entries)
			for i := range entries {
				if entries[i].Value, err = open(entries[i]); err != nil {
					return nil, storeFailure(k, "list", err)
				}
			}
		}
		if items, err = r.views(ctx, k, entries); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		return items, nil
	}
	return res
}

// checkListOptions refuses combinations of options that upstream refuses.
func checkListOptions(opts *metav1.ListOptions, watch bool) error {
	return InvalidOptions("ListOptions", validation.ValidateListOptions(&internalversion.ListOptions{
		Watch: watch, AllowWatchBookmarks: opts.AllowWatchBookmarks, ResourceVersion: opts.ResourceVersion,
		ResourceVersionMatch: opts.ResourceVersionMatch, Limit: opts.Limit, Continue: opts.Continue,
		SendInitialEvents: opts.SendInitialEvents,
	}, true))
}

// listFrom returns after which key, and as of which revision, a list begins; at is 0 for now.
func (r *Registry) listFrom(ctx context.Context, sel *selection, opts *metav1.ListOptions) (after string, at sqlstore.Revision, err error) {
	if opts.Continue != "" {
		if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
			return "", 0, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		return decodeContinue(sel, opts.Continue)
	}
	rev, err := objects.ParseRevision(opts.ResourceVersion)
	if err != nil {
		return "", 0, badRevision(opts.ResourceVersion, err)
	}
	if rev == 0 {
		return "", 0, nil
	}
	now, err := r.store.Revision(ctx)
	if err != nil {
		return "", 0, storeFailure(sel.kind, "list", err)
	}
	if rev > now {
		return "", 0, tooLarge(rev, now)
	}
	// A limit without a match has always meant exactly that revision.
	if opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact || opts.ResourceVersionMatch == "" && opts.Limit > 0 {
		return "", rev, nil
	}
	return "", 0, nil
}

// page reads up to limit selected entries, all as of one revision. Their values are as they are kept (sqlstore.Sealing).
func (r *Registry) page(ctx context.Context, sel *selection, after string, limit int, at sqlstore.Revision) (sqlstore.Page, sqlstore.Opener, error) {
	if sel.plain() && sel.key == "" {
		return sqlstore.ListSealed(ctx, r.store, sel.prefix, after, limit, at)
	}
	chunk := 0
	if limit > 0 {
		chunk = max(4*limit, 500)
	}
	out, open := sqlstore.Page{}, sqlstore.Opener(nil)
	for {
		page, opener, err := sqlstore.ListSealed(ctx, r.store, sel.prefix, after, chunk, at)
		if err != nil {
			return page, nil, err
		}
		at, out.Rev = page.Rev, page.Rev
		if open == nil {
			open = opener // all is as of one revision: a later one has no other keys, but for those taken away in between
		}
		for i, e := range page.Entries {
			if !sel.hasKey(e.Key) {
				continue
			}
			if ok, err := r.selects(sel, e, open); err != nil {
				return page, nil, err
			} else if !ok {
				continue
			}
			out.Entries = append(out.Entries, e)
			if limit > 0 && len(out.Entries) == limit {
				out.More = page.More || i < len(page.Entries)-1
				return out, open, nil
			}
		}
		if !page.More {
			return out, open, nil
		}
		after = page.Entries[len(page.Entries)-1].Key
	}
}

// listFailure turns the store's errors about history into those that clients of Kubernetes know.
func listFailure(sel *selection, opts *metav1.ListOptions, after string, err error) error {
	var compacted *sqlstore.CompactedError
	var future *sqlstore.FutureError
	switch {
	case errors.As(err, &compacted) && opts.Continue != "":
		gone := apierrors.NewResourceExpired(continueOldText)
		gone.ErrStatus.ListMeta.Continue = continueToken(sel, after+"\x00", -1)
		return gone
	case errors.As(err, &compacted):
		return apierrors.NewResourceExpired(listExpiredText)
	case errors.As(err, &future):
		return tooLarge(future.Asked, future.Current)
	}
	return storeFailure(sel.kind, "list", err)
}

// A continue token names the revision of the list's first page and the key from which to go on. Revision -1 asks for the
// rest as of now: what a client gets when its revision is no longer kept.
type continuation struct {
	Version  string            `json:"v"`
	Revision sqlstore.Revision `json:"rv"`
	Start    string            `json:"start"`
}

const continueVersion = "meta.k8s.io/v1"

// continueToken returns the token of the next page, which begins at the key start.
func continueToken(sel *selection, start string, rev sqlstore.Revision) string {
	b, err := json.Marshal(continuation{continueVersion, rev, strings.TrimPrefix(start, sel.prefix)})
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// decodeContinue returns the last key of the page before, and the revision to read at (0: now).
func decodeContinue(sel *selection, token string) (after string, at sqlstore.Revision, err error) {
	bad := func(format string, args ...any) (string, sqlstore.Revision, error) {
		return "", 0, apierrors.NewBadRequest(fmt.Sprintf("continue key is not valid: "+format, args...))
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return bad("%v", err)
	}
	var c continuation
	if err := json.Unmarshal(b, &c); err != nil {
		return bad("%v", err)
	}
	switch {
	case c.Version != continueVersion:
		return bad("server does not recognize this encoded version %v", c.Version)
	case c.Revision == 0:
		return bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	case c.Start == "":
		return bad("encoded start key empty (version meta.k8s.io/v1)")
	}
	start := "/" + strings.TrimPrefix(c.Start, "/")
	if path.Clean(start) != start {
		return bad("%v", c.Start)
	}
	// The token has the key to go on from, the store wants the last key of the page before.
	return sel.prefix + strings.TrimSuffix(start[1:], "\x00"), max(c.Revision, 0), nil
}
