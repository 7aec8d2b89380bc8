// Package board reads what a machine is and how it fares from the files of its kernel and firmware: which board, its serial
// number, and whether its supply, its temperature or its card needs attention. Nothing is started or written, and every function
// takes the machine's files with "/" at their root, so that a test is a tree of files.
package board

import (
	"cmp"
	"io/fs"
	"slices"
	"strings"
)

// maxName bounds a slug in bytes: it is the value of a label, and one part of a host name.
const maxName = 63

// text returns a file without the white space and zero bytes at its ends, empty when it cannot be read.
func text(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.Trim(string(b), " \t\n\x00")
}

// glob returns the names that match. The patterns of this package are well formed, which is all that Glob can complain about.
func glob(root fs.FS, pattern string) []string {
	names, _ := fs.Glob(root, pattern)
	return names
}

// first returns the first file that has a text.
func first(root fs.FS, names ...string) string {
	for _, name := range names {
		if s := text(root, name); s != "" {
			return s
		}
	}
	return ""
}

// Model returns what the device tree or DMI calls the machine, such as "Raspberry Pi 4 Model B Rev 1.4"; empty when neither does.
func Model(root fs.FS) string {
	if model := TreeModel(root); model != "" {
		return model
	}
	return meant(text(root, "sys/class/dmi/id/product_name"))
}

// TreeModel is Model of boards only: those that have a device tree.
func TreeModel(root fs.FS) string {
	return first(root, "proc/device-tree/model", "sys/firmware/devicetree/base/model")
}

// placeholders are what makers of PCs leave in DMI where a name or a number should be, in small letters.
var placeholders = []string{
	"to be filled by o.e.m.", "default string", "system serial number", "system product name", "not specified", "not applicable",
	"none", "unknown", "oem", "empty", "n/a", "123456789", "0123456789",
}

// meant returns a text of the firmware, empty when it only fills a gap. Two machines with such a text are not one.
func meant(s string) string {
	if slices.Contains(placeholders, strings.ToLower(s)) || strings.Trim(s, "0.xX- ") == "" {
		return ""
	}
	return s
}

// Serial returns the serial number of the board as its maker has written it; empty when the machine has none, or may not show it:
// that of DMI is for root only.
func Serial(root fs.FS) string {
	for _, s := range []string{
		first(root, "proc/device-tree/serial-number", "sys/firmware/devicetree/base/serial-number"),
		cpuSerial(root),
		text(root, "sys/class/dmi/id/product_serial"),
		text(root, "sys/class/dmi/id/board_serial"),
	} {
		if s = meant(s); s != "" {
			return s
		}
	}
	return ""
}

// cpuSerial returns the line Serial of /proc/cpuinfo, which 32-bit ARM kernels have.
func cpuSerial(root fs.FS) string {
	for line := range strings.Lines(text(root, "proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "Serial" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// MachineID returns the id that systemd or D-Bus gave this installation; empty while there is none. Copies of a card have the same.
func MachineID(root fs.FS) string {
	id := first(root, "etc/machine-id", "var/lib/dbus/machine-id")
	if id == "uninitialized" { // an image before its first boot
		return ""
	}
	return id
}

// MAC returns the hardware address of the first physical network interface, as hexadecimal digits in groups of two with colons:
// of a wired one where there is one, otherwise of a wireless one, by the order of their names. Addresses that software has made
// up do not count, because they change with each boot. Empty when there is no such interface.
func MAC(root fs.FS) string {
	var wired, wireless string
	for _, dir := range glob(root, "sys/class/net/*") {
		if _, err := fs.Stat(root, dir+"/device"); err != nil {
			continue // a bridge, a tunnel, loopback
		}
		// 0 is NET_ADDR_PERM of the kernel; type 1 is Ethernet, which wireless interfaces have too.
		mac := strings.ToLower(text(root, dir+"/address"))
		if text(root, dir+"/addr_assign_type") != "0" || text(root, dir+"/type") != "1" || strings.Trim(mac, "0:") == "" {
			continue
		}
		if _, err := fs.Stat(root, dir+"/phy80211"); err == nil {
			wireless = cmp.Or(wireless, mac)
		} else {
			wired = cmp.Or(wired, mac)
		}
	}
	return cmp.Or(wired, wireless)
}

// Hostname returns the machine's host name as its kernel has it, in small letters.
func Hostname(root fs.FS) string {
	return strings.ToLower(first(root, "proc/sys/kernel/hostname", "etc/hostname"))
}

// Slug returns a text in the form of a label's value, in small letters: "raspberry-pi-4-model-b-rev-1.4".
func Slug(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	out := b.String()
	return strings.Trim(out[:min(len(out), maxName)], "-.")
}
