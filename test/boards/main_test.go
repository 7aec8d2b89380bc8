package boards

import (
	"fmt"
	"os"
	"testing"

	"petrel.dev/petrel/test/harness"
)

// boardDir is the directory in which cross-build/board/board.sh has made a board ready; empty: there is none.
var boardDir = os.Getenv("PETREL_BOARD")

func TestMain(m *testing.M) {
	if boardDir == "" {
		fmt.Println("skipping tests of emulated boards: make boards BOARDS=arm64-mixed runs them")
		return
	}
	harness.Main(m)
}
