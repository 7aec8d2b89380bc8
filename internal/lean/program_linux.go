package lean

import (
	"bufio"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// mapping is an address range that may be dropped: a file's, never written.
type mapping struct{ from, to uintptr }

// dropProgram unmaps the pages of this process' executable that are as they are in the file. The next touch of one maps it
// again from the page cache, or reads it from the disk if the kernel has needed the room. It returns how large the
// mappings are.
//
// Only what the kernel itself calls private, not writable and of our own executable is touched: for such a page of a static
// executable MADV_DONTNEED changes nothing that a program can see. A dynamic linker writes to pages before it makes them read-only,
// and they would be lost: then nothing is dropped. Read-ahead and the mapping of neighbours stay as they are; they are what keeps a
// cold start from an SD card short.
func dropProgram() (int, error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	if linked, err := relocated("/proc/self/exe"); linked || err != nil {
		return 0, err
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	list, err := readOnly(f, exe)
	if err != nil {
		return 0, err
	}
	dropped := 0
	for _, m := range list {
		size := m.to - m.from
		// By number: the range is not the Go heap's, and unix.Madvise wants a slice over it, which vet rightly suspects.
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, m.from, size, syscall.MADV_DONTNEED); errno != 0 {
			return dropped, fmt.Errorf("madvise %x-%x: %w", m.from, m.to, errno)
		}
		dropped += int(size)
	}
	return dropped, nil
}

// relocated reports whether an executable has parts that are written while it is loaded and read-only afterwards.
func relocated(exe string) (bool, error) {
	f, err := elf.Open(exe)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_GNU_RELRO || p.Type == elf.PT_INTERP {
			return true, nil
		}
	}
	return false, nil
}

// readOnly finds exe's private mappings without write permission in a table of the form of /proc/PID/maps (proc(5)):
//
//	00400000-02a1b000 r-xp 00000000 08:02 173521      /usr/bin/petrel
func readOnly(maps io.Reader, exe string) ([]mapping, error) {
	var out []mapping
	for lines := bufio.NewScanner(maps); ; {
		if !lines.Scan() {
			return out, lines.Err()
		}
		line := lines.Text()
		fields := strings.Fields(line)
		if len(fields) < 6 || !strings.HasSuffix(line, " "+exe) {
			continue
		}
		if perm := fields[1]; len(perm) != 4 || perm[0] != 'r' || perm[1] != '-' || perm[3] != 'p' {
			continue
		}
		from, to, ok := strings.Cut(fields[0], "-")
		a, err1 := strconv.ParseUint(from, 16, int(8*unsafe.Sizeof(uintptr(0))))
		b, err2 := strconv.ParseUint(to, 16, int(8*unsafe.Sizeof(uintptr(0))))
		if !ok || err1 != nil || err2 != nil || a >= b {
			return nil, fmt.Errorf("maps: %q is not an address range", fields[0])
		}
		out = append(out, mapping{uintptr(a), uintptr(b)})
	}
}

// resident returns how many bytes of this process are in memory, those of its executable included; 0 when that cannot be read.
func resident() int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}
