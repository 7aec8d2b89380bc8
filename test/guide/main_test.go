package guide

import (
	"fmt"
	"os"
	"testing"

	"petrel.dev/petrel/test/harness"
)

func TestMain(m *testing.M) {
	if err := first(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	harness.Main(m)
}
