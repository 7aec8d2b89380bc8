package doctor

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"petrel.dev/petrel/internal/board"
)

const mebi = 1 << 20

// Free space of the data directory below which a hub or agent does not get far, and below which images soon are too many.
const (
	leastFree  = 512 * mebi
	littleFree = 2048 * mebi
)

// model reports which machine this is. It finds nothing wrong: others in the table are read with it in mind.
func model(m Machine) Finding {
	if model := board.Model(m.Root); model != "" {
		return Finding{Result: OK, What: model}
	}
	return Finding{Result: OK, What: "not known: neither a device tree nor DMI names it"}
}

// pageSize warns of kernels with large pages: the programs in many images have the size of a page built in.
func pageSize(m Machine) Finding {
	if m.PageSize <= 4096 {
		return Finding{Result: OK, What: "4 KiB"}
	}
	f := Finding{Result: Warn, What: fmt.Sprintf("%d KiB: programs that were built for pages of 4 KiB do not start, those with jemalloc among them", m.PageSize/1024),
		Do: "if such images are to run, use a kernel with pages of 4 KiB"}
	if m.has("boot/firmware/config.txt") {
		f.Do += ": add the line kernel=kernel8.img to /boot/firmware/config.txt and reboot"
	}
	return f
}

// dataAncestor returns the data directory, or what is there already of its path.
func (m Machine) dataAncestor() string {
	dir := path.Clean(m.DataDir)
	for dir != "/" && !m.has(strings.TrimPrefix(dir, "/")) {
		dir = path.Dir(dir)
	}
	return dir
}

// disk measures the file system that the data directory lies on, or will.
func disk(m Machine) Finding {
	free, total, err := m.Space(m.dataAncestor())
	if err != nil {
		return Finding{Result: Fail, What: "the space for " + m.DataDir + " cannot be measured: " + err.Error(), Do: "choose another --data-dir"}
	}
	what := fmt.Sprintf("%d MiB of %d free for %s", free/mebi, total/mebi, m.DataDir)
	switch {
	case free < leastFree:
		return Finding{Result: Fail, What: what, Do: fmt.Sprintf("free space until it has %d MiB, or choose another --data-dir", leastFree/mebi)}
	case free < littleFree:
		return Finding{Result: Warn, What: what, Do: "there is no room for many images; a larger card or disk has it"}
	}
	return Finding{Result: OK, What: what}
}

// swap warns of swap space on a card. That in compressed memory (zram) is good to have.
func swap(m Machine) Finding {
	var used []string
	for i, line := range strings.Split(m.text("proc/swaps"), "\n") {
		if f := strings.Fields(line); i > 0 && len(f) > 0 && !strings.HasPrefix(path.Base(f[0]), "zram") {
			used = append(used, f[0])
		}
	}
	if len(used) == 0 {
		return Finding{Result: OK, What: "none on a disk"}
	}
	return Finding{Result: Warn, What: "on " + strings.Join(used, ", ") + ": it wears cards out, and pods that should be ended for their memory make the machine slow first",
		Do: "switch it off: `swapoff -a`, and for good in /etc/fstab, `systemctl disable dphys-swapfile` or `rpi-swap`"}
}

// power looks at what a Raspberry Pi's firmware reports of its supply. A board at low voltage crashes, and damages its card.
func power(m Machine) Finding {
	s := board.ReadSupply(m.Root)
	if !s.Measured || !s.Complete && len(s.Now) == 0 {
		return Finding{Result: OK, What: "nothing is reported"}
	}
	var parts []string
	if len(s.Now) > 0 {
		parts = append(parts, listed(s.Now))
	}
	if len(s.Before) > 0 {
		parts = append(parts, "since it was switched on: "+listed(s.Before))
	}
	if len(parts) == 0 {
		return Finding{Result: OK, What: "no low voltage and no throttling since it was switched on"}
	}
	return Finding{Result: Warn, What: strings.Join(parts, "; "), Do: "use the power supply that was made for the board, with a short cable, and cool it"}
}

func listed(list []board.Shortage) string {
	var texts []string
	for _, s := range list {
		texts = append(texts, string(s))
	}
	return strings.Join(texts, ", ")
}

// temperature looks at the hottest sensor.
func temperature(m Machine) Finding {
	milli, sensor, ok := board.Temperature(m.Root)
	if !ok {
		return Finding{Result: OK, What: "no sensor"}
	}
	f := Finding{Result: OK, What: strings.TrimSpace(fmt.Sprintf("%d °C %s", milli/1000, sensor))}
	if milli >= board.Hot {
		f.Result, f.Do = Warn, "cool it: a board that is this hot is slow"
	}
	return f
}

// wear looks at cards and soldered memories that report theirs.
func wear(m Machine) Finding {
	list := board.ReadWear(m.Root)
	if len(list) == 0 {
		return Finding{Result: OK, What: "no card reports its wear"}
	}
	var texts []string
	for _, w := range list {
		texts = append(texts, w.String())
	}
	f := Finding{Result: OK, What: strings.Join(texts, "; ")}
	if slices.ContainsFunc(list, board.Wear.Worn) {
		f.Result, f.Do = Warn, "make a backup (`petrel backup`) and replace the card soon"
	}
	return f
}
