package doctor

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// tree makes files of names and contents.
func tree(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range files {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

// with returns files with others added or replaced; those whose content is "gone" are left out.
func with(files map[string]string, changes ...string) map[string]string {
	out := maps.Clone(files)
	for i := 0; i < len(changes); i += 2 {
		if out[changes[i]] = changes[i+1]; changes[i+1] == "gone" {
			delete(out, changes[i])
		}
	}
	return out
}

const cgroupsOn = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t70\t1\ncpu\t0\t70\t1\nmemory\t0\t70\t1\npids\t0\t70\t1\n"

// raspberry is Raspberry Pi OS on a Pi 4, as it comes.
var raspberry = map[string]string{
	"proc/device-tree/model":           "Raspberry Pi 4 Model B Rev 1.4\x00",
	"proc/sys/kernel/osrelease":        "6.12.47+rpt-rpi-v8\n",
	"proc/filesystems":                 "nodev\tsysfs\nnodev\ttmpfs\n\text4\n",
	"proc/cgroups":                     "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t70\t1\nmemory\t0\t70\t0\n",
	"proc/swaps":                       "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/var/swap                               file\t\t524284\t\t0\t\t-2\n",
	"proc/modules":                     "brcmfmac 315392 0 - Live 0x0000000000000000\n",
	"proc/net/tcp":                     "  sl  local_address rem_address   st tx_queue\n   0: 00000000:0016 00000000:0000 0A 00000000:00000000\n",
	"proc/self/ns/mnt":                 "",
	"proc/self/ns/pid":                 "",
	"proc/self/ns/net":                 "",
	"proc/self/ns/uts":                 "",
	"proc/self/ns/ipc":                 "",
	"proc/1/comm":                      "systemd\n",
	"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n",
	"sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
	"sys/class/thermal/thermal_zone0/temp":                "48312\n",
	"sys/class/thermal/thermal_zone0/type":                "cpu-thermal\n",
	"boot/firmware/cmdline.txt":                           "console=tty1 root=PARTUUID=4c5f-02 rootfstype=ext4 rootwait\n",
	"boot/firmware/config.txt":                            "arm_64bit=1\n",
	"lib/modules/6.12.47+rpt-rpi-v8/modules.dep":          "kernel/net/bridge/bridge.ko.xz: kernel/net/llc/llc.ko.xz\nkernel/drivers/net/veth.ko.xz:\nkernel/net/netfilter/nf_tables.ko.xz:\nkernel/net/netfilter/nft-masq.ko.xz:\nkernel/drivers/net/vxlan/vxlan.ko.xz:\nkernel/fs/overlayfs/overlay.ko.xz:\n",
	"lib/modules/6.12.47+rpt-rpi-v8/modules.builtin":      "kernel/fs/ext4/ext4.ko\n",
	"var/lib/dpkg/status":                                 "",
}

// debian is a server with amd64.
var debian = map[string]string{
	"sys/class/dmi/id/product_name":             "OptiPlex 7050\n",
	"proc/sys/kernel/osrelease":                 "6.12.57-amd64\n",
	"proc/filesystems":                          "nodev\tsysfs\nnodev\toverlay\n",
	"proc/cgroups":                              cgroupsOn,
	"proc/swaps":                                "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/zram0                              partition\t524284\t\t0\t\t100\n",
	"proc/modules":                              "bridge 1 0 - Live 0x0\nveth 1 0 - Live 0x0\nnf_tables 1 1 nft_masq, Live 0x0\n",
	"proc/net/tcp":                              "  sl  local_address rem_address   st\n",
	"proc/net/tcp6":                             "  sl  local_address rem_address   st\n",
	"proc/self/ns/mnt":                          "",
	"proc/self/ns/pid":                          "",
	"proc/self/ns/net":                          "",
	"proc/self/ns/uts":                          "",
	"proc/self/ns/ipc":                          "",
	"proc/900/comm":                             "dockerd\n",
	"sys/fs/cgroup/cgroup.controllers":          "cpuset cpu io memory pids\n",
	"sys/module/nft_masq/refcnt":                "0\n",
	"usr/lib/modules/6.12.57-amd64/modules.dep": "kernel/drivers/net/vxlan/vxlan.ko.zst: kernel/net/ipv4/udp_tunnel.ko.zst\n",
	"var/lib/dpkg/status":                       "",
}

// container is the inside of one: /proc is the kernel's, /lib/modules and what is mounted are not.
var container = map[string]string{
	".dockerenv":                "",
	"proc/sys/kernel/osrelease": "6.12.57-amd64\n",
	"proc/filesystems":          "nodev\toverlay\n",
	"proc/cgroups":              cgroupsOn,
	"proc/self/ns/mnt":          "",
	"proc/self/ns/pid":          "",
	"proc/self/ns/net":          "",
	"proc/self/ns/uts":          "",
	"proc/self/ns/ipc":          "",
}

func machine(files map[string]string) Machine {
	return Machine{
		Root: tree(files), PageSize: 4096, Now: time.Date(2026, time.May, 4, 12, 0, 0, 0, time.UTC), DataDir: "/var/lib/petrel", Port: 6443,
		Space: func(string) (int64, int64, error) { return 20_000 * mebi, 30_000 * mebi, nil },
	}
}

// TestMachines holds what each of three machines, as they come, is found to be: everything that is not listed is fine.
func TestMachines(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  map[string]Result
	}{
		{"raspberry", raspberry, map[string]Result{"cgroup-memory": Fail, "swap": Warn}},
		{"debian", debian, nil},
		{"container", container, map[string]Result{"cgroup-memory": Fail, "modules": Warn}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := machine(tc.files)
			m.Speed = func(string) (Speed, error) { return Speed{Write: 20 * mebi, Read: 40 * mebi, Syncs: 200}, nil }
			found := Examine(m, Hub, Agent)
			if len(found) != len(checks) {
				t.Errorf("%d findings of %d checks", len(found), len(checks))
			}
			for _, f := range found {
				want := tc.want[f.Name]
				if want == "" {
					want = OK
				}
				if f.Result != want {
					t.Errorf("%s is %s (%s), want %s", f.Name, f.Result, f.What, want)
				}
				if f.What == "" || (f.Do == "") != (f.Result == OK) {
					t.Errorf("%s: what %q, do %q: each finding says what, and how to change it when that is not ok", f.Name, f.What, f.Do)
				}
			}
			if Failed(found) != (tc.want != nil) {
				t.Errorf("Failed is %v", Failed(found))
			}
		})
	}
}

// TestRoles checks that a hub needs no kernel for containers, and an agent no port.
func TestRoles(t *testing.T) {
	names := func(roles ...Role) string {
		var out []string
		for _, f := range Examine(machine(debian), roles...) {
			out = append(out, f.Name)
		}
		return strings.Join(out, " ")
	}
	if got, want := names(Hub), "board clock page-size disk port swap power temperature wear"; got != want {
		t.Errorf("hub: %s, want %s", got, want)
	}
	if got, want := names(Agent), "board clock page-size disk vxlan-port namespaces overlayfs modules cgroup-memory swap neighbours power temperature wear"; got != want {
		t.Errorf("agent: %s, want %s", got, want)
	}
}

// TestChecks holds each check to what it says of one change to a machine.
func TestChecks(t *testing.T) {
	const release = "lib/modules/6.12.47+rpt-rpi-v8/"
	for _, tc := range []struct {
		name, check string
		files       map[string]string
		change      func(m *Machine)
		want        Result
		what, do    string // parts of the finding
	}{
		{name: "model", check: "board", files: raspberry, want: OK, what: "Raspberry Pi 4 Model B Rev 1.4"},
		{name: "DMI", check: "board", files: debian, want: OK, what: "OptiPlex 7050"},
		{name: "1970", check: "clock", files: raspberry, change: func(m *Machine) { m.Now = time.Unix(30, 0) }, want: Fail, what: "1970, and this board has none of its own", do: "timedatectl"},
		{name: "1970 with a clock", check: "clock", files: with(debian, "sys/class/rtc/rtc0/name", "rtc_cmos"), change: func(m *Machine) { m.Now = time.Unix(30, 0) }, want: Fail, what: "shows the year 1970"},
		{name: "16 KiB on a Pi 5", check: "page-size", files: raspberry, change: func(m *Machine) { m.PageSize = 16384 }, want: Warn, what: "16 KiB", do: "kernel=kernel8.img"},
		{name: "64 KiB elsewhere", check: "page-size", files: debian, change: func(m *Machine) { m.PageSize = 65536 }, want: Warn, what: "64 KiB", do: "pages of 4 KiB"},
		{name: "full", check: "disk", files: raspberry, change: free(300 * mebi), want: Fail, what: "300 MiB of 30000 free for /var/lib/petrel", do: "512 MiB"},
		{name: "small", check: "disk", files: raspberry, change: free(900 * mebi), want: Warn, what: "900 MiB"},
		{name: "unreadable", check: "disk", files: raspberry, change: func(m *Machine) {
			m.Space = func(string) (int64, int64, error) { return 0, 0, errors.New("no such device") }
		}, want: Fail, what: "no such device"},
		{name: "taken", check: "port", files: with(debian, "proc/net/tcp6", "  sl  local_address rem_address   st\n 0: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A 0\n"), want: Fail, what: "port 6443", do: "ss -ltnp sport = :6443"},
		{name: "connected is not listening", check: "port", files: with(debian, "proc/net/tcp", "h\n 0: 0100007F:192B 0100007F:9999 01 0\n"), want: OK, what: "6443 is free"},
		{name: "taken by petrel", check: "port", files: with(debian, "proc/net/tcp", "h\n 0: 00000000:192B 00000000:0000 0A 0\n", "proc/77/comm", "petrel\n"), want: OK, what: "petrel runs here already"},
		{name: "no namespaces", check: "namespaces", files: with(debian, "proc/self/ns/net", "gone", "proc/self/ns/pid", "gone"), want: Fail, what: "pid, net"},
		{name: "loaded overlay", check: "overlayfs", files: debian, want: OK, what: "the kernel has it"},
		{name: "overlay as a module", check: "overlayfs", files: raspberry, want: OK, what: "a module"},
		{name: "no overlay", check: "overlayfs", files: with(raspberry, release+"modules.dep", "kernel/net/bridge/bridge.ko:\n"), want: Fail, what: "no overlay", do: "CONFIG_OVERLAY_FS"},
		{name: "overlay after an upgrade", check: "overlayfs", files: with(raspberry, release+"modules.dep", "gone"), want: Warn, do: "reboot"},
		{name: "built in", check: "modules", files: with(raspberry, release+"modules.builtin", "kernel/net/bridge/bridge.ko\nkernel/drivers/net/veth.ko\nkernel/net/netfilter/nf_tables.ko\nkernel/net/netfilter/nft_masq.ko\nkernel/drivers/net/vxlan.ko\n", release+"modules.dep", "x.ko:\n"), want: OK},
		{name: "no vxlan", check: "modules", files: with(debian, "usr/lib/modules/6.12.57-amd64/modules.dep", "kernel/fs/udf/udf.ko.zst: kernel/vxlan.ko\n"), want: Fail, what: "neither built in nor as modules: vxlan", do: "6.12.57-amd64"},
		{name: "modules after an upgrade", check: "modules", files: with(debian, "usr/lib/modules/6.12.57-amd64/modules.dep", "gone"), want: Warn, what: "vxlan", do: "reboot"},
		{name: "modules in a container", check: "modules", files: container, want: Warn, do: "not in a container"},
		{name: "v2", check: "cgroup-memory", files: debian, want: OK, what: "v2"},
		{name: "v1", check: "cgroup-memory", files: with(debian, "sys/fs/cgroup/cgroup.controllers", "gone", "sys/fs/cgroup/memory/memory.limit_in_bytes", "9"), want: OK, what: "v1"},
		{name: "off on Pi OS", check: "cgroup-memory", files: raspberry, want: Fail, what: "off", do: `add "cgroup_enable=memory cgroup_memory=1" to the end of the one line in /boot/firmware/cmdline.txt and reboot; --fix adds it`},
		{name: "off on an older Pi OS", check: "cgroup-memory", files: with(raspberry, "boot/firmware/cmdline.txt", "gone", "boot/cmdline.txt", "root=/dev/mmcblk0p2 rootwait"), want: Fail, do: "/boot/cmdline.txt"},
		{name: "on at the next boot", check: "cgroup-memory", files: with(raspberry, "boot/firmware/cmdline.txt", "root=x cgroup_enable=memory cgroup_memory=1\n"), want: Fail, do: "reboot: /boot/firmware/cmdline.txt switches it on already"},
		{name: "off without a Pi", check: "cgroup-memory", files: with(debian, "sys/fs/cgroup/cgroup.controllers", "cpu", "proc/cgroups", "memory 0 1 0\n"), want: Fail, do: "to the kernel's command line"},
		{name: "not handed on", check: "cgroup-memory", files: container, want: Fail, what: "not to be had in /sys/fs/cgroup", do: "mount"},
		{name: "swap on the card", check: "swap", files: raspberry, want: Warn, what: "/var/swap", do: "swapoff"},
		{name: "zram", check: "swap", files: debian, want: OK},
		{name: "k3s", check: "neighbours", files: with(debian, "proc/44/comm", "k3s-server\n", "proc/45/comm", "k3s-server\n"), want: Fail, what: "k3s-server runs here", do: "k3s-uninstall.sh"},
		{name: "kubelet", check: "neighbours", files: with(debian, "proc/44/comm", "kubelet\n"), want: Fail, what: "kubelet", do: "kubeadm reset"},
		{name: "microk8s", check: "neighbours", files: with(debian, "proc/44/comm", "kubelite\n"), want: Fail, what: "kubelite"},
		{name: "another agent", check: "neighbours", files: with(debian, "proc/44/cmdline", "/opt/petrel\x00agent\x00--data-dir\x00/srv/other\x00"), want: Fail, what: "/srv/other", do: "petrel uninstall agent"},
		{name: "the agent itself", check: "neighbours", files: with(debian, "proc/44/cmdline", "/usr/local/bin/petrel\x00agent\x00--data-dir=/var/lib/petrel/\x00"), want: OK},
		{name: "a hub beside it", check: "neighbours", files: with(debian, "proc/44/cmdline", "petrel\x00hub\x00--data-dir=/srv/hub\x00"), want: OK},
		{name: "taken", check: "vxlan-port", files: with(debian, "proc/net/udp", "h\n 0: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n"), want: Fail, what: "4789", do: "ss -lnup sport = :4789"},
		{name: "another VXLAN", check: "vxlan-port", files: with(debian, "proc/net/udp6", "h\n 0: 00000000000000000000000000000000:12B5 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0 0\n"), want: OK, what: "free"},
		{name: "fast", check: "disk-speed", files: debian, change: speed(Speed{Write: 80 * mebi, Read: 90 * mebi, Syncs: 900}, nil), want: OK, what: "writes 80 MiB/s, reads 90 MiB/s, 900 synchronised writes a second"},
		{name: "slow to write", check: "disk-speed", files: debian, change: speed(Speed{Write: 3 * mebi, Read: 90 * mebi, Syncs: 900}, nil), want: Warn, what: "writes 3 MiB/s", do: "A1 or A2"},
		{name: "slow to synchronise", check: "disk-speed", files: debian, change: speed(Speed{Write: 30 * mebi, Read: 90 * mebi, Syncs: 9}, nil), want: Warn, what: "9 synchronised", do: "near its end"},
		{name: "not to be tried", check: "disk-speed", files: debian, change: speed(Speed{}, errors.New("permission denied")), want: Warn, what: "permission denied", do: "as root"},
		{name: "full", check: "disk-speed", files: debian, change: func(m *Machine) { speed(Speed{}, nil)(m); free(60 * mebi)(m) }, want: Warn, what: "too full", do: "free space"},
		{name: "not synchronised", check: "clock", files: with(debian, "sys/class/rtc/rtc0/name", "rtc_cmos"), change: func(m *Machine) { m.Sync = Unsynced }, want: Warn, what: "not synchronised with a time server", do: "timedatectl set-ntp true"},
		{name: "no clock of its own", check: "clock", files: raspberry, change: func(m *Machine) { m.Sync = Unsynced }, want: Warn, what: "the time is that of the last shutdown", do: "chrony"},
		{name: "synchronised", check: "clock", files: raspberry, change: func(m *Machine) { m.Sync = Synced }, want: OK, what: ", synchronised"},
		{name: "worn", check: "wear", files: with(raspberry, "sys/block/mmcblk0/device/life_time", "0x0b 0x02\n"), want: Warn, what: "mmcblk0 is beyond its life", do: "petrel backup"},
		{name: "like new", check: "wear", files: with(raspberry, "sys/block/mmcblk0/device/life_time", "0x01 0x01\n", "sys/block/mmcblk0/device/pre_eol_info", "0x01\n"), want: OK, what: "0 to 10 %"},
		{name: "an SD card", check: "wear", files: raspberry, want: OK, what: "no card reports"},
		{name: "docker", check: "neighbours", files: debian, want: OK, what: "dockerd runs here, and is left alone"},
		{name: "low voltage", check: "power", files: with(raspberry, "sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"), want: Warn, what: "the voltage is too low, the processor is throttled", do: "power supply"},
		{name: "low voltage before", check: "power", files: with(raspberry, "sys/devices/platform/soc/soc:firmware/get_throttled", "0x10000\n"), want: Warn, what: "since it was switched on: the voltage is too low"},
		{name: "newer board", check: "power", files: with(raspberry, "sys/devices/platform/soc/soc:firmware/get_throttled", "gone", "sys/class/hwmon/hwmon1/name", "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n"), want: Warn, what: "the voltage is too low"},
		{name: "no firmware", check: "power", files: debian, want: OK, what: "nothing is reported"},
		{name: "cool", check: "temperature", files: raspberry, want: OK, what: "48 °C cpu-thermal"},
		{name: "hot", check: "temperature", files: with(raspberry, "sys/class/thermal/thermal_zone1/temp", "84000\n", "sys/class/thermal/thermal_zone1/type", "gpu\n"), want: Warn, what: "84 °C gpu", do: "cool"},
		{name: "no sensor", check: "temperature", files: container, want: OK, what: "no sensor"},
	} {
		t.Run(tc.check+"/"+tc.name, func(t *testing.T) {
			m := machine(tc.files)
			if tc.change != nil {
				tc.change(&m)
			}
			for _, f := range Examine(m, Hub, Agent) {
				if f.Name != tc.check {
					continue
				}
				if f.Result != tc.want || !strings.Contains(f.What, tc.what) || !strings.Contains(f.Do, tc.do) {
					t.Errorf("%s: %q, %q; want %s: … %q …, … %q …", f.Result, f.What, f.Do, tc.want, tc.what, tc.do)
				}
				return
			}
			t.Errorf("no check %s", tc.check)
		})
	}
}

func speed(s Speed, err error) func(*Machine) {
	return func(m *Machine) { m.Speed = func(string) (Speed, error) { return s, err } }
}

// TestMeasureDisk tries a real disk, and checks that nothing is left on it.
func TestMeasureDisk(t *testing.T) {
	dir := t.TempDir()
	s, err := MeasureDisk(dir)
	if err != nil || s.Write <= 0 || s.Read <= 0 || s.Syncs <= 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := MeasureDisk(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that is not there was measured")
	}
}

func free(n int64) func(*Machine) {
	return func(m *Machine) {
		m.Space = func(string) (int64, int64, error) { return n, 30_000 * mebi, nil }
	}
}

// TestDiskAsksWhereTheDirectoryWillBe checks that a data directory that is not there yet is measured at what is there of its path.
func TestDiskAsksWhereTheDirectoryWillBe(t *testing.T) {
	m := machine(debian) // has /var/lib
	asked := ""
	m.Space = func(dir string) (int64, int64, error) { asked = dir; return 1, 1, nil }
	if disk(m); asked != "/var/lib" {
		t.Errorf("measured %s, want /var/lib", asked)
	}
	m.DataDir = "/srv/petrel/"
	if disk(m); asked != "/" {
		t.Errorf("measured %s, want /", asked)
	}
}

// TestEnableMemory checks the rewrite of the kernel's command line: one line stays one, everything else in it too, what switches the
// controller off goes, and the copy stays the distribution's.
func TestEnableMemory(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "boot/firmware/cmdline.txt")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(path, want string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s is %q (%v), want %q", path, b, err, want)
		}
	}
	const first = "console=tty1 root=PARTUUID=4c-02 cgroup_disable=memory rootwait\n"
	const fixed = "console=tty1 root=PARTUUID=4c-02 rootwait cgroup_enable=memory cgroup_memory=1\n"
	put(first)
	for _, change := range []bool{true, false} {
		if got, changed, err := EnableMemory(root); err != nil || got != file || changed != change {
			t.Fatalf("EnableMemory: %s, %v, %v; want changed %v", got, changed, err, change)
		}
		expect(file, fixed)
		expect(file+".petrel", first)
	}
	put("root=x cgroup_enable=memory\n")
	if _, changed, err := EnableMemory(root); err != nil || !changed {
		t.Fatal(changed, err)
	}
	expect(file, "root=x cgroup_enable=memory cgroup_memory=1\n")
	expect(file+".petrel", first)

	for _, bad := range []string{"", "DO NOT EDIT THIS FILE\n\nThe file you are looking for has moved\n", "a=1\nb=2\n"} {
		put(bad)
		if _, _, err := EnableMemory(root); err == nil || !strings.Contains(err.Error(), "by hand") {
			t.Errorf("%q: %v, want a refusal", bad, err)
		}
		expect(file, bad)
	}
	if _, _, err := EnableMemory(t.TempDir()); err == nil || !strings.Contains(err.Error(), "cgroup_enable=memory cgroup_memory=1") {
		t.Errorf("without a file: %v", err)
	}
}
