package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"petrel.dev/petrel/internal/durable"
)

// memoryWords switch the memory controller on where a board's firmware switches it off, as on Raspberry Pi OS.
var memoryWords = []string{"cgroup_enable=memory", "cgroup_memory=1"}

// commandLines are where the firmware of a Raspberry Pi reads the kernel's command line, the newer place first: what is
// in the older one on newer systems is a notice that the file has moved.
var commandLines = []string{"boot/firmware/cmdline.txt", "boot/cmdline.txt"}

// cgroupMemory looks whether containers' memory can be limited and measured.
func cgroupMemory(m Machine) Finding {
	if slices.Contains(strings.Fields(m.text("sys/fs/cgroup/cgroup.controllers")), "memory") {
		return Finding{Result: OK, What: "on, cgroup v2"}
	}
	if m.has("sys/fs/cgroup/memory/memory.limit_in_bytes") {
		return Finding{Result: OK, What: "on, cgroup v1"}
	}
	for line := range strings.Lines(m.text("proc/cgroups")) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "memory" && f[3] == "1" {
			return Finding{Result: Fail, What: "the kernel has it on, but it is not to be had in /sys/fs/cgroup",
				Do: "mount the cgroup v2 hierarchy at /sys/fs/cgroup, as systemd does; in a container, give it its own cgroup namespace"}
		}
	}
	f := Finding{Result: Fail, What: "the kernel's memory controller is off: pods with memory limits are refused",
		Do: `add "` + strings.Join(memoryWords, " ") + `" to the kernel's command line and reboot`}
	for _, name := range commandLines {
		if !m.has(name) {
			continue
		}
		if _, changed, err := withMemory(m.text(name)); err == nil && !changed {
			f.Do = "reboot: /" + name + " switches it on already"
		} else {
			f.Do = `add "` + strings.Join(memoryWords, " ") + `" to the end of the one line in /` + name + " and reboot; --fix adds it"
		}
		break
	}
	return f
}

// withMemory returns the kernel's command line with the memory controller on, and whether that is another one.
func withMemory(line string) (string, bool, error) {
	line = strings.TrimSpace(line)
	if line == "" || strings.ContainsAny(line, "\n\r") || !strings.Contains(line, "=") {
		return "", false, errors.New("it is not one line of kernel parameters")
	}
	words := slices.DeleteFunc(strings.Fields(line), func(w string) bool { return w == "cgroup_disable=memory" || w == "cgroup_memory=0" })
	for _, w := range memoryWords {
		if !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	next := strings.Join(words, " ")
	return next, next != strings.Join(strings.Fields(line), " "), nil
}

// EnableMemory adds what switches the memory controller on to the kernel's command line of the Raspberry Pi whose files are below
// root. It returns the file, below root; the old one stays beside it, as FILE.petrel. Changed is false when there was nothing to
// add. The change acts after a reboot.
func EnableMemory(root string) (file string, changed bool, err error) {
	for _, name := range commandLines {
		path := filepath.Join(root, name)
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", false, fmt.Errorf("kernel command line: %w", err)
		}
		next, changed, err := withMemory(string(b))
		if err != nil {
			return "", false, fmt.Errorf("kernel command line: %s: %w; change it by hand", path, err)
		}
		if !changed {
			return path, false, nil
		}
		fi, err := os.Stat(path)
		if err != nil {
			return "", false, fmt.Errorf("kernel command line: %w", err)
		}
		// A board with a broken line does not boot: the copy is on the card before the line changes, where another machine can
		// put it back. One that is there already is the line as the distribution made it, so it stays.
		if _, err := os.Stat(path + ".petrel"); errors.Is(err, fs.ErrNotExist) {
			if err := durable.WriteFile(path+".petrel", b, fi.Mode().Perm()); err != nil {
				return "", false, fmt.Errorf("kernel command line: %w", err)
			}
		}
		if err := durable.WriteFile(path, []byte(next+"\n"), fi.Mode().Perm()); err != nil {
			return "", false, fmt.Errorf("kernel command line: %w", err)
		}
		return path, true, nil
	}
	return "", false, errors.New(`kernel command line: there is no /boot/firmware/cmdline.txt: add "` + strings.Join(memoryWords, " ") +
		`" where this machine's boot loader has it (GRUB: GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub)`)
}
