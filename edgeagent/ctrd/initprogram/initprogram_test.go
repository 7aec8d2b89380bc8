package initprogram

import (
	"bytes"
	"debug/elf"
	"testing"
)

// TestInitProgram checks that the first process is a program that this machine runs, and that ends by SIGKILL alone.
func TestInitProgram(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64", "arm"} {
		b, err := ELF(arch)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", arch, err)
		}
		p := f.Progs[0]
		if at := f.Entry - p.Vaddr; f.Type != elf.ET_EXEC || p.Filesz != uint64(len(b)) || at != uint64(len(b)-32-len(machineCode[arch])) {
			t.Errorf("%s: %+v %+v", arch, f.FileHeader, p.ProgHeader)
		}
	}
	if _, err := ELF("vax"); err == nil {
		t.Error("there is none for a VAX")
	}
}
