package storetest_test

import (
	"testing"

	"petrel.dev/petrel/sqlstore/storetest"
)

type spec struct{}

func (spec) Open(testing.TB) storetest.Store { return &storetest.Spec{} }

func TestSpec(t *testing.T) { storetest.Run(t, spec{}) }
