package board

import (
	"slices"
	"testing"
	"testing/fstest"
)

func tree(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range files {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

// pi is what these functions read of a Raspberry Pi.
var pi = map[string]string{
	"proc/device-tree/model":              "Raspberry Pi 4 Model B Rev 1.4\x00",
	"proc/device-tree/serial-number":      "10000000A1B2C3D4\x00",
	"proc/sys/kernel/hostname":            "Shed.lan\n",
	"etc/machine-id":                      "0123456789abcdef0123456789abcdef\n",
	"sys/class/net/lo/address":            "00:00:00:00:00:00\n",
	"sys/class/net/petrel0/address":       "02:11:11:11:11:11\n",
	"sys/class/net/eth0/address":          "dc:a6:32:01:02:0F\n",
	"sys/class/net/eth0/type":             "1\n",
	"sys/class/net/eth0/addr_assign_type": "0\n",
	"sys/class/net/eth0/device/uevent":    "",
	"sys/class/net/ath0/address":          "dc:a6:32:01:02:03\n",
	"sys/class/net/ath0/type":             "1\n",
	"sys/class/net/ath0/addr_assign_type": "0\n",
	"sys/class/net/ath0/device/uevent":    "",
	"sys/class/net/ath0/phy80211/name":    "phy0",
}

// pc is what they read of a PC whose maker has filled DMI with what it found in the manual.
var pc = map[string]string{
	"sys/class/dmi/id/product_name":   "OptiPlex 7050\n",
	"sys/class/dmi/id/product_serial": "To Be Filled By O.E.M.\n",
	"sys/class/dmi/id/board_serial":   "/7X8Y9/CN123/\n",
	"etc/machine-id":                  "uninitialized\n",
	"etc/hostname":                    "desk\n",
}

// TestIdentity checks where model, serial number, machine id, host name and hardware address come from, and that what only fills a gap
// is not taken for one.
func TestIdentity(t *testing.T) {
	without := func(files map[string]string, names ...string) map[string]string {
		out := map[string]string{}
		for k, v := range files {
			if !slices.Contains(names, k) {
				out[k] = v
			}
		}
		return out
	}
	random := without(pi)
	random["sys/class/net/eth0/addr_assign_type"] = "1\n"
	arm32 := without(pi, "proc/device-tree/serial-number")
	arm32["proc/cpuinfo"] = "processor\t: 0\n\nHardware\t: BCM2835\nSerial\t\t: 00000000deadbeef\n"
	zeros := without(arm32)
	zeros["proc/cpuinfo"] = "Serial\t\t: 0000000000000000\n"
	for _, tc := range []struct {
		name                         string
		files                        map[string]string
		model, serial, id, host, mac string
	}{
		{"pi", pi, "Raspberry Pi 4 Model B Rev 1.4", "10000000A1B2C3D4", "0123456789abcdef0123456789abcdef", "shed.lan", "dc:a6:32:01:02:0f"},
		{"no wire", without(pi, "sys/class/net/eth0/device/uevent"), "Raspberry Pi 4 Model B Rev 1.4", "10000000A1B2C3D4", "0123456789abcdef0123456789abcdef", "shed.lan", "dc:a6:32:01:02:03"},
		{"random address", random, "Raspberry Pi 4 Model B Rev 1.4", "10000000A1B2C3D4", "0123456789abcdef0123456789abcdef", "shed.lan", "dc:a6:32:01:02:03"},
		{"32 bits", arm32, "Raspberry Pi 4 Model B Rev 1.4", "00000000deadbeef", "0123456789abcdef0123456789abcdef", "shed.lan", "dc:a6:32:01:02:0f"},
		{"zeros", zeros, "Raspberry Pi 4 Model B Rev 1.4", "", "0123456789abcdef0123456789abcdef", "shed.lan", "dc:a6:32:01:02:0f"},
		{"pc", pc, "OptiPlex 7050", "/7X8Y9/CN123/", "", "desk", ""},
		{"nothing", nil, "", "", "", "", ""},
	} {
		root := tree(tc.files)
		for _, v := range []struct{ what, got, want string }{
			{"model", Model(root), tc.model}, {"serial", Serial(root), tc.serial}, {"machine id", MachineID(root), tc.id},
			{"host name", Hostname(root), tc.host}, {"MAC", MAC(root), tc.mac},
		} {
			if v.got != v.want {
				t.Errorf("%s: %s is %q, want %q", tc.name, v.what, v.got, v.want)
			}
		}
	}
	for text, want := range map[string]string{
		"Raspberry Pi 4 Model B Rev 1.4": "raspberry-pi-4-model-b-rev-1.4", "/7X8Y9/CN123/": "7x8y9-cn123", "...": "", "Ünï": "n",
	} {
		if got := Slug(text); got != want {
			t.Errorf("Slug(%q) is %q, want %q", text, got, want)
		}
	}
}

// TestSupply checks the bits of the firmware, those of before among them, and the monitor that newer kernels have.
func TestSupply(t *testing.T) {
	const file = "sys/devices/platform/soc/soc:firmware/get_throttled"
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  Supply
	}{
		{"fine", map[string]string{file: "0\n"}, Supply{Measured: true, Complete: true}},
		{"now and before", map[string]string{file: "50005\n"}, Supply{true, true, []Shortage{LowVoltage, Throttled}, nil}},
		{"before", map[string]string{file: "0x90000\n"}, Supply{true, true, nil, []Shortage{LowVoltage, NearLimit}}},
		{"nonsense", map[string]string{file: "?\n"}, Supply{}},
		{"monitor", map[string]string{"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n"}, Supply{Measured: true}},
		{"monitor, low", map[string]string{"sys/class/hwmon/hwmon0/name": "cpu_thermal\n", "sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"},
			Supply{Measured: true, Now: []Shortage{LowVoltage}}},
		{"none", nil, Supply{}},
	} {
		got := ReadSupply(tree(tc.files))
		if got.Measured != tc.want.Measured || got.Complete != tc.want.Complete || !slices.Equal(got.Now, tc.want.Now) || !slices.Equal(got.Before, tc.want.Before) {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

// TestHeat checks that the hottest sensor counts, and cooling only where it is the processor's frequency.
func TestHeat(t *testing.T) {
	root := tree(map[string]string{
		"sys/class/thermal/thermal_zone0/temp": "48312\n", "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
		"sys/class/thermal/thermal_zone1/temp": "84000\n", "sys/class/thermal/thermal_zone1/type": "gpu\n",
		"sys/class/thermal/cooling_device0/type": "pwm-fan\n", "sys/class/thermal/cooling_device0/cur_state": "3\n",
		"sys/class/thermal/cooling_device1/type": "cpufreq-cpu0\n", "sys/class/thermal/cooling_device1/cur_state": "0\n",
	})
	if milli, sensor, ok := Temperature(root); milli != 84000 || sensor != "gpu" || !ok {
		t.Errorf("temperature %d of %s, %v", milli, sensor, ok)
	}
	if slowed, measured := Slowed(root); slowed || !measured {
		t.Errorf("a fan that turns slows nothing: %v, %v", slowed, measured)
	}
	root["sys/class/thermal/cooling_device1/cur_state"].Data = []byte("2\n")
	if slowed, _ := Slowed(root); !slowed {
		t.Error("a processor below its frequency is not seen")
	}
	if _, _, ok := Temperature(tree(nil)); ok {
		t.Error("a sensor where there is none")
	}
	if _, measured := Slowed(tree(nil)); measured {
		t.Error("a means of cooling where there is none")
	}
}

// TestWear checks what eMMC reports of its life, and that cards that report nothing are left out.
func TestWear(t *testing.T) {
	for _, tc := range []struct {
		life, reserve, want string
		worn                bool
	}{
		{"0x01 0x02\n", "0x01\n", "mmcblk0 has used 10 to 20 % of its life", false},
		{"0x0a 0x01\n", "0x01\n", "mmcblk0 has used 90 to 100 % of its life", true},
		{"0x0b 0x01\n", "0x03\n", "mmcblk0 is beyond its life and has nearly no spare blocks any more", true},
		{"0x00 0x00\n", "0x02\n", "mmcblk0 has used most of its spare blocks", true},
		{"0x00 0x00\n", "0x00\n", "", false},
		{"junk 0xff\n", "junk\n", "", false},
	} {
		list := ReadWear(tree(map[string]string{
			"sys/block/mmcblk0/device/life_time": tc.life, "sys/block/mmcblk0/device/pre_eol_info": tc.reserve,
			"sys/block/mmcblk1/device/type": "SD\n", "sys/block/sda/device/life_time": "0x0b 0x0b\n",
		}))
		if tc.want == "" {
			if len(list) != 0 {
				t.Errorf("%q, %q: %v, want nothing", tc.life, tc.reserve, list)
			}
			continue
		}
		if len(list) != 1 || list[0].String() != tc.want || list[0].Worn() != tc.worn {
			t.Errorf("%q, %q: %v, want %s, worn %v", tc.life, tc.reserve, list, tc.want, tc.worn)
		}
	}
	list := ReadWear(tree(map[string]string{"sys/block/mmcblk0/device/life_time": "0x01 0x01", "sys/block/mmcblk1/device/life_time": "0x05 0x01"}))
	if len(list) != 2 || list[0].Device != "mmcblk1" {
		t.Errorf("the most worn is not first: %v", list)
	}
}
