package registry

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/registry/fieldmanager"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// current is an object as the store has it now. obj is shared: read-only.
type current struct {
	entry sqlstore.Entry
	obj   kube.Object
}

// plan is one object's change, decided by rules and admission and not yet committed. obj and enc are what is written;
// an empty enc means that there is nothing to write.
type plan struct {
	kind     *resource.Kind // the request's Working kind
	key      string
	old      *current // nil: a creation
	obj      kube.Object
	stored   kube.Object // obj in the version that is stored; obj itself where that is the same. Set by encode
	enc      objects.Encoded
	remove   bool
	frees    bool // a step on the way to a deletion: a full store takes it
	warnings []string
}

func (p *plan) noop() bool { return p.enc.Value == nil }

// ifRev returns the revision that the plan was made from.
func (p *plan) ifRev() sqlstore.Revision {
	if p.old == nil {
		return 0
	}
	return p.old.entry.Rev
}

// maxObject bounds a stored object as request bodies are bounded, so that a patch cannot make an object too large to be
// sent back.
const maxObject = 3 << 20

// bounded refuses what is too large to be written. Deletions are exempt, and an object that is too large already may
// shrink. As upstream, an object that is too large only with its managers is stored without, unless it was applied.
func (p *plan) bounded(ctx context.Context, q *request) error {
	if n := len(p.enc.Value); n > maxObject && (p.old == nil || n > len(p.old.entry.Value)) {
		if !q.apply && fieldmanager.Tracked(p.obj) {
			p.obj.SetManagedFields(nil)
			if err := p.encode(ctx); err != nil {
				return err
			}
			return p.bounded(ctx, q)
		}
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the object would have %d bytes, limit is %d", n, maxObject))
	}
	return nil
}

// encode fills enc from obj.
func (p *plan) encode(ctx context.Context) (err error) {
	if p.stored = p.obj; p.kind.StoredAs != nil {
		p.stored, err = p.kind.ToStored(ctx, p.obj.DeepCopyObject().(kube.Object))
	}
	if err == nil {
		p.enc, err = objects.Encode(p.kind.Stored(), p.stored)
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return nil
}

// encodeChange does what encode does, but leaves enc empty when the object would not change: a write that changes nothing makes no
// revision and no event. Nor do new times of managers that did the same again.
func (p *plan) encodeChange(ctx context.Context) error {
	undo := fieldmanager.SameTimes(p.old.obj, p.obj)
	if err := p.encode(ctx); err != nil {
		return err
	}
	if p.enc.Same(p.old.entry.Value, p.old.entry.Rev) {
		p.enc = objects.Encoded{}
	} else if undo != nil {
		undo()
		return p.encode(ctx)
	}
	return nil
}

// current reads an object, in the version in which requests of k are decided; nil when it does not exist.
func (r *Registry) current(ctx context.Context, k *resource.Kind, key string) (*current, error) {
	e, ok, err := r.store.Get(ctx, key)
	if err != nil {
		return nil, storeFailure(k, "get", err)
	}
	if !ok {
		return nil, nil
	}
	objs, err := r.shown(ctx, k.Working(), []sqlstore.Entry{e})
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return &current{entry: e, obj: objs[0]}, nil
}

// commit makes all plans durable in one transaction, or none. Afterwards each plan's obj carries its resourceVersion and
// is shared.
func (r *Registry) commit(ctx context.Context, plans ...*plan) ([]sqlstore.Revision, error) {
	ops := make([]sqlstore.Op, len(plans))
	reserve := auth.UserFrom(ctx).IsMaster()
	offers := make([]*objects.Handoff, len(plans))
	for i, p := range plans {
		ops[i] = sqlstore.Op{Key: p.key, Delete: p.remove, Value: p.enc.Value, RevAt: p.enc.At, If: p.ifRev(), Frees: p.frees, Reserve: reserve}
		if !p.remove {
			offers[i] = r.objects.Offer(p.kind.Stored(), p.key, p.enc, p.stored)
		}
	}
	revs, err := r.store.Commit(ctx, ops...)
	for i, o := range offers {
		if err == nil && (o == nil || plans[i].stored != plans[i].obj) { // otherwise it is set when the offer is settled
			plans[i].obj.SetResourceVersion(objects.FormatRevision(revs[i]))
		}
		if o == nil {
			continue
		}
		if err != nil {
			r.objects.Settle(o, 0)
		} else {
			r.objects.Settle(o, revs[i])
		}
	}
	return revs, err
}

// maxTries bounds how often a write starts again because of a conflict. Of concurrent writers of one object one succeeds in each round, so
// only hundreds of them on one object come near it.
const maxTries = 300

// change runs prepare on the current object (nil when there is none) and commits its plan, again from the new current when
// another write came between.
func (r *Registry) change(ctx context.Context, q *request, prepare func(*current) (*plan, error)) (*plan, *Result, error) {
	t := q.Target
	key := resource.Key(t.Kind, t.Namespace, t.Name)
	for range maxTries {
		cur, err := r.current(ctx, t.Kind, key)
		if err != nil {
			return nil, nil, err
		}
		p, err := prepare(cur)
		if err != nil {
			return nil, nil, err
		}
		if q.DryRun || p.noop() {
			res, err := r.uncommitted(ctx, q, p)
			return p, res, err
		}
		revs, err := r.commit(ctx, p)
		var lost *sqlstore.ConflictError
		if errors.As(err, &lost) {
			if ctx.Err() != nil {
				return nil, nil, storeFailure(t.Kind, "update", ctx.Err())
			}
			continue
		}
		if err != nil {
			return nil, nil, storeFailure(t.Kind, "update", err)
		}
		res, err := r.committed(ctx, q, p, revs[0])
		return p, res, err
	}
	return nil, nil, modified(t.Kind, t.Name)
}

// committed returns the result with what has just been written: as read back, or as it was passed to the store when that cannot be
// read.
func (r *Registry) committed(ctx context.Context, q *request, p *plan, rev sqlstore.Revision) (*Result, error) {
	res := &Result{Object: p.obj, Warnings: p.warnings, Created: p.old == nil}
	if e, ok, err := r.store.Get(ctx, p.key); err == nil && ok && e.Rev == rev {
		res.JSON = e.Value
	} else {
		b, err := encodeBody(p.obj) // already overwritten or deleted again: rare
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		res.JSON = b
	}
	return r.asViewed(ctx, q.Kind, p.key, rev, res)
}

// uncommitted returns the result with what would have been written (dry run), or with the current object when nothing had to be.
func (r *Registry) uncommitted(ctx context.Context, q *request, p *plan) (*Result, error) {
	res := &Result{Warnings: p.warnings, Created: p.old == nil}
	var rev sqlstore.Revision
	switch {
	case p.noop():
		res.JSON, res.Object, rev = p.old.entry.Value, p.old.obj, p.old.entry.Rev
		return r.asViewed(ctx, q.Kind, p.key, rev, res)
	case p.old == nil:
		p.obj.SetResourceVersion("")
	default:
		p.obj.SetResourceVersion(objects.FormatRevision(p.ifRev()))
	}
	shown := []kube.Object{p.obj}
	var err error
	if q.Kind != q.kind {
		if shown, err = q.Kind.FromStored(ctx, p.obj); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	b, err := encodeBody(shown[0])
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	res.JSON, res.Object = b, shown[0]
	return res, nil
}

// asViewed gives a result the form in which k shows its objects.
func (r *Registry) asViewed(ctx context.Context, k *resource.Kind, key string, rev sqlstore.Revision, res *Result) (*Result, error) {
	if k.AsStored() {
		return res, nil
	}
	objs, err := r.shown(ctx, k, []sqlstore.Entry{{Key: key, Rev: rev, Value: res.JSON}})
	if err == nil {
		res.JSON, err = encodeBody(objs[0])
	}
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	res.Object = objs[0]
	return res, nil
}
