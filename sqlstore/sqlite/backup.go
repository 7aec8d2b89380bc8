package sqlite

import (
	"context"
	"fmt"
	"os"
)

// syncFile makes what was written to path durable.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Verify reads the store at path, which no process may have open, without changing it, and returns what is wrong: nil means
// that it is sound and that this Petrel can open it.
func Verify(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("verify store: %w", err)
	}
	conn, err := openConn(path)
	if err != nil {
		return fmt.Errorf("verify store %s: %w", path, err)
	}
	defer conn.Close()
	f := &file{conn: conn}
	check := func() error {
		if err := f.exec("PRAGMA query_only = 1"); err != nil {
			return err
		}
		if err := quickCheck(conn); err != nil {
			return err
		}
		app, err := queryInt(conn, "PRAGMA application_id")
		if err != nil {
			return err
		}
		if app != applicationID {
			return fmt.Errorf("it is not a Petrel store")
		}
		version, err := queryInt(conn, "PRAGMA user_version")
		if err != nil {
			return err
		}
		if int(version) > len(migrations) {
			return &VersionError{Path: path, Have: int(version), Known: len(migrations)}
		}
		_, err = f.load(ctx, nil)
		return err
	}
	if err := check(); err != nil {
		return fmt.Errorf("verify store %s: %w", path, err)
	}
	return nil
}
