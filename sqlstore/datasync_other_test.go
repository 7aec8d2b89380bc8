//go:build !linux

package sqlstore_test

import "os"

func datasync(f *os.File) error { return f.Sync() }
