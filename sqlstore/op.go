package sqlstore

import "fmt"

// maxValue is the largest value of a key in bytes. The API refuses bodies long before; this keeps an engine's own limit
// (SQLite's is 1e9) from failing a transaction that others share.
const maxValue = 256 << 20

// Check returns why ops cannot be committed by any store, or nil. Engines call it before anything else.
func Check(ops []Op) error {
	for i := range ops {
		if err := ops[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (op *Op) check() error {
	switch {
	case op.Key == "":
		return fmt.Errorf("commit: empty key")
	case op.Delete && op.If == 0:
		return fmt.Errorf("commit: key %q is to be deleted and must not exist", op.Key)
	case op.If < AnyRevision:
		return fmt.Errorf("commit: key %q: precondition %d is no revision", op.Key, op.If)
	case op.RevAt > len(op.Value):
		return fmt.Errorf("commit: key %q: revision goes at %d of a value of %d bytes", op.Key, op.RevAt, len(op.Value))
	case len(op.Value) > maxValue:
		return fmt.Errorf("commit: key %q: value of %d bytes, at most %d are allowed", op.Key, len(op.Value), maxValue)
	}
	return nil
}
