package doctor

import (
	"path"
	"slices"
	"strings"
)

// needed are the parts of the kernel that pods' networks are made of, as their modules are called.
var needed = []string{"bridge", "veth", "nf_tables", "nft_masq", "vxlan"}

// presence is what can be seen of a part of the kernel without loading it.
type presence int

const (
	absent presence = iota
	unknown
	present
)

// namespaces looks for the kinds of namespaces that make a container.
func namespaces(m Machine) Finding {
	var missing []string
	for _, ns := range []string{"mnt", "pid", "net", "uts", "ipc"} {
		if !slices.Contains(m.glob("proc/self/ns/*"), "proc/self/ns/"+ns) {
			missing = append(missing, ns)
		}
	}
	if len(missing) > 0 {
		return Finding{Result: Fail, What: "the kernel has no namespaces of these kinds: " + strings.Join(missing, ", "),
			Do: "use a kernel with CONFIG_NAMESPACES and what is below it, such as that of the distribution"}
	}
	return Finding{Result: OK, What: "all that containers need"}
}

// overlayfs looks for the file system that containers' files are layered with.
func overlayfs(m Machine) Finding {
	for line := range strings.Lines(m.text("proc/filesystems")) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == "overlay" {
			return Finding{Result: OK, What: "the kernel has it"}
		}
	}
	switch m.module("overlay") {
	case present:
		return Finding{Result: OK, What: "a module, loaded when it is first used"}
	case unknown:
		return Finding{Result: Warn, What: "not loaded, and the modules of the running kernel cannot be seen", Do: m.seeModules()}
	}
	return Finding{Result: Fail, What: "the kernel has no overlay file system, which the files of containers are made with",
		Do: "use a kernel with CONFIG_OVERLAY_FS"}
}

// modules looks for the parts of the kernel that networks need.
func modules(m Machine) Finding {
	var missing, unseen []string
	for _, name := range needed {
		switch m.module(name) {
		case absent:
			missing = append(missing, name)
		case unknown:
			unseen = append(unseen, name)
		}
	}
	switch {
	case len(missing) > 0:
		return Finding{Result: Fail, What: "the kernel has neither built in nor as modules: " + strings.Join(missing, ", "),
			Do: "install the distribution's package with more modules of this kernel (" + m.release() + "), and reboot if it brings a new kernel"}
	case len(unseen) > 0:
		return Finding{Result: Warn, What: "not loaded, and the modules of the running kernel cannot be seen: " + strings.Join(unseen, ", "), Do: m.seeModules()}
	}
	return Finding{Result: OK, What: strings.Join(needed, ", ")}
}

// seeModules says what to do where /lib/modules has nothing for the running kernel: in a container, and after an upgrade of the
// kernel that no reboot has followed, when modules that are not loaded yet can not be loaded any more.
func (m Machine) seeModules() string {
	if m.container() {
		return "run this on the machine itself, not in a container"
	}
	return "if the kernel was upgraded, reboot: modules of " + m.release() + ", which runs, are not in /lib/modules"
}

// release is the version of the running kernel.
func (m Machine) release() string { return m.text("proc/sys/kernel/osrelease") }

// module looks for a part of the kernel among what is loaded, built in and can be loaded.
func (m Machine) module(name string) presence {
	if m.has("sys/module/" + name) {
		return present
	}
	for line := range strings.Lines(m.text("proc/modules")) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == name {
			return present
		}
	}
	dir, release := "", m.release()
	for _, d := range []string{"lib/modules/", "usr/lib/modules/"} {
		if release != "" && m.has(d+release+"/modules.dep") {
			dir = d + release
			break
		}
	}
	if dir == "" {
		return unknown
	}
	for _, list := range []string{"/modules.builtin", "/modules.dep"} {
		for line := range strings.Lines(m.text(dir + list)) {
			file, _, _ := strings.Cut(strings.TrimSpace(line), ":") // modules.dep goes on with what the module needs
			base, _, _ := strings.Cut(path.Base(file), ".ko")       // .ko, .ko.xz, .ko.zst
			if strings.ReplaceAll(base, "-", "_") == name {
				return present
			}
		}
	}
	return absent
}

// container reports whether this looks like the inside of a container.
func (m Machine) container() bool {
	return m.has(".dockerenv") || m.has("run/.containerenv") || m.has("run/systemd/container")
}
