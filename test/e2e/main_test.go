package e2e

import (
	"testing"

	"petrel.dev/petrel/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
