package e2e

import (
	"debug/elf"
	"os"
	"testing"

	"petrel.dev/petrel/test/harness"
)

// TestBinarySize holds the binary to its budget: it is downloaded over a phone network and kept twice on an SD card. What
// it is made of, and what would make it smaller, is in docs/adr/0002-binary-size.md. Raising the figure needs a reason
// there.
func TestBinarySize(t *testing.T) {
	const budget = 85_000_000 // 82.7 MB when kubectl's libraries came in (docs/adr/0009-kubectl-libraries.md), on amd64
	f, err := elf.Open(harness.Petrel)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Section(".symtab") != nil {
		t.Skip("this binary has its symbols; the budget is for the one that `make build` makes (PETREL_BIN)")
	}
	info, err := os.Stat(harness.Petrel)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	if info.Size() > budget {
		t.Errorf("the binary has %d bytes, the budget is %d: see what grew with `go tool nm -size -sort size`", info.Size(), budget)
	}
}
