package doctor

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"petrel.dev/petrel/internal/clock"
)

const mebi = 1 << 20

// Free space of the data directory below which a hub or agent does not get far, and below which images soon are too many.
const (
	leastFree  = 512 * mebi
	littleFree = 2048 * mebi
)

// hot is the temperature in thousandths of a degree from which a Raspberry Pi slows down; other boards are not far from it.
const hot = 80_000

// board reports which machine this is. It finds nothing wrong: others in the table are read with it in mind.
func board(m Machine) Finding {
	for _, name := range []string{"proc/device-tree/model", "sys/firmware/devicetree/base/model", "sys/class/dmi/id/product_name"} {
		if model := m.text(name); model != "" {
			return Finding{Result: OK, What: model}
		}
	}
	return Finding{Result: OK, What: "not known: neither a device tree nor DMI names it"}
}

// clockSet looks whether the time can be right. Certificates and tokens are not valid at a time before they were made.
func clockSet(m Machine) Finding {
	if clock.Sane(m.Now).Equal(m.Now) {
		return Finding{Result: OK, What: m.Now.UTC().Format("2006-01-02 15:04 UTC")}
	}
	f := Finding{Result: Fail, What: fmt.Sprintf("the clock shows the year %d", m.Now.Year()),
		Do: "set the time: `timedatectl set-ntp true`, with a network; or `date -s`"}
	if len(m.glob("sys/class/rtc/rtc*")) == 0 {
		f.What += ", and this board has none of its own"
	}
	return f
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

// disk measures the file system that the data directory lies on, or will.
func disk(m Machine) Finding {
	dir := path.Clean(m.DataDir)
	for dir != "/" && !m.has(strings.TrimPrefix(dir, "/")) {
		dir = path.Dir(dir)
	}
	free, total, err := m.Space(dir)
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

// throttled are the bits of a Raspberry Pi's firmware, of now and, sixteen higher, of the time since it was switched on.
var throttled = []struct {
	bit  int
	what string
}{{0, "the voltage is too low"}, {1, "the processor is kept below its frequency"}, {2, "the processor is throttled"}, {3, "it is near its limit of temperature"}}

// power looks at what a Raspberry Pi's firmware reports of its supply. A board at low voltage crashes, and damages its card.
func power(m Machine) Finding {
	for _, name := range m.glob("sys/devices/platform/soc*/soc*:firmware/get_throttled") {
		bits, err := strconv.ParseUint(strings.TrimPrefix(m.text(name), "0x"), 16, 32)
		if err != nil {
			continue
		}
		var now, before []string
		for _, t := range throttled {
			switch {
			case bits>>t.bit&1 == 1:
				now = append(now, t.what)
			case bits>>(t.bit+16)&1 == 1:
				before = append(before, t.what)
			}
		}
		return supply(now, before)
	}
	for _, name := range m.glob("sys/class/hwmon/hwmon*/name") {
		if m.text(name) == "rpi_volt" && m.text(path.Dir(name)+"/in0_lcrit_alarm") == "1" {
			return supply([]string{throttled[0].what}, nil)
		}
	}
	return Finding{Result: OK, What: "nothing is reported"}
}

// supply is power's finding of what is so now, and what was since the board was switched on.
func supply(now, before []string) Finding {
	var parts []string
	if len(now) > 0 {
		parts = append(parts, strings.Join(now, ", "))
	}
	if len(before) > 0 {
		parts = append(parts, "since it was switched on: "+strings.Join(before, ", "))
	}
	if len(parts) == 0 {
		return Finding{Result: OK, What: "no low voltage and no throttling since it was switched on"}
	}
	return Finding{Result: Warn, What: strings.Join(parts, "; "), Do: "use the power supply that was made for the board, with a short cable, and cool it"}
}

// temperature looks at the hottest sensor.
func temperature(m Machine) Finding {
	most, where := -1<<31, ""
	for _, name := range m.glob("sys/class/thermal/thermal_zone*/temp") {
		if t, err := strconv.Atoi(m.text(name)); err == nil && t > most {
			most, where = t, m.text(path.Dir(name)+"/type")
		}
	}
	if where == "" && most == -1<<31 {
		return Finding{Result: OK, What: "no sensor"}
	}
	f := Finding{Result: OK, What: strings.TrimSpace(fmt.Sprintf("%d °C %s", most/1000, where))}
	if most >= hot {
		f.Result, f.Do = Warn, "cool it: a board that is this hot is slow"
	}
	return f
}
