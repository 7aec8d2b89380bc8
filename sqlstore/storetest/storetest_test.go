package storetest_test

import (
	"testing"

	"petrel.dev/petrel/sqlstore/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(testing.TB) storetest.Store { return &storetest.Memory{} })
}
