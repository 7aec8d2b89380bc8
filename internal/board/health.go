package board

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Shortage is something that the firmware of a Raspberry Pi reports of the board, as a part of a sentence.
type Shortage string

// What the firmware reports.
const (
	LowVoltage Shortage = "the voltage is too low"
	Capped     Shortage = "the processor is kept below its frequency"
	Throttled  Shortage = "the processor is throttled"
	NearLimit  Shortage = "it is near its limit of temperature"
)

// shortages are the firmware's bits of now, from bit 0 on; those of the time since the board was switched on are sixteen higher.
var shortages = []Shortage{LowVoltage, Capped, Throttled, NearLimit}

// Supply is what a board reports of its power and its speed.
type Supply struct {
	// Measured is true when the machine has something to ask; Complete when that covers the time since it was switched on.
	Measured, Complete bool
	Now                []Shortage
	Before             []Shortage // since the machine was switched on, without those of Now
}

// ReadSupply asks the firmware of a Raspberry Pi, or the monitor of its voltage where only that is there.
func ReadSupply(root fs.FS) Supply {
	for _, name := range glob(root, "sys/devices/platform/soc*/soc*:firmware/get_throttled") {
		bits, err := strconv.ParseUint(strings.TrimPrefix(text(root, name), "0x"), 16, 32)
		if err != nil {
			continue
		}
		s := Supply{Measured: true, Complete: true}
		for bit, what := range shortages {
			switch {
			case bits>>bit&1 == 1:
				s.Now = append(s.Now, what)
			case bits>>(bit+16)&1 == 1:
				s.Before = append(s.Before, what)
			}
		}
		return s
	}
	for _, name := range glob(root, "sys/class/hwmon/hwmon*/name") {
		if text(root, name) != "rpi_volt" {
			continue
		}
		s := Supply{Measured: true}
		if text(root, path.Dir(name)+"/in0_lcrit_alarm") == "1" {
			s.Now = []Shortage{LowVoltage}
		}
		return s
	}
	return Supply{}
}

// Slowed reports whether the kernel keeps a processor below its frequency because of heat, and whether it has the means to: on
// boards other than a Raspberry Pi the kernel does what the firmware does there.
func Slowed(root fs.FS) (slowed, measured bool) {
	for _, name := range glob(root, "sys/class/thermal/cooling_device*/type") {
		if !strings.Contains(text(root, name), "cpufreq") {
			continue
		}
		state, err := strconv.Atoi(text(root, path.Dir(name)+"/cur_state"))
		if err != nil {
			continue
		}
		measured = true
		slowed = slowed || state > 0
	}
	return slowed, measured
}

// Hot is the temperature, in thousandths of a degree Celsius, from which a Raspberry Pi slows down; other boards are not far from it.
const Hot = 80_000

// Temperature returns what the hottest sensor shows, in thousandths of a degree Celsius, and which it is; ok is false when the
// machine has none.
func Temperature(root fs.FS) (milli int, sensor string, ok bool) {
	for _, name := range glob(root, "sys/class/thermal/thermal_zone*/temp") {
		t, err := strconv.Atoi(text(root, name))
		if err == nil && (!ok || t > milli) {
			milli, sensor, ok = t, text(root, path.Dir(name)+"/type"), true
		}
	}
	return milli, sensor, ok
}

// Wear is what a card or a soldered memory (eMMC) reports of itself. SD cards, mostly, report nothing.
type Wear struct {
	Device string // as in /dev
	// Used is how much of its life is over, in percent, rounded up to tens; 0: not reported. More than 100: it is beyond it.
	Used int
	// Reserve is how its spare blocks are: 0 not reported, 1 as they should be, 2 most are used up, 3 nearly all are.
	Reserve int
}

// Worn reports whether the device should be replaced soon.
func (w Wear) Worn() bool { return w.Used > 90 || w.Reserve > 1 }

// String describes the device for people.
func (w Wear) String() string {
	var parts []string
	switch {
	case w.Used > 100:
		parts = append(parts, "is beyond its life")
	case w.Used > 0:
		parts = append(parts, fmt.Sprintf("has used %d to %d %% of its life", w.Used-10, w.Used))
	}
	switch w.Reserve {
	case 2:
		parts = append(parts, "has used most of its spare blocks")
	case 3:
		parts = append(parts, "has nearly no spare blocks any more")
	}
	return w.Device + " " + strings.Join(parts, " and ")
}

// ReadWear returns the cards and soldered memories that report their wear, the most worn first.
func ReadWear(root fs.FS) []Wear {
	var list []Wear
	for _, dir := range glob(root, "sys/block/mmcblk*/device") {
		w := Wear{Device: path.Base(path.Dir(dir))}
		for _, field := range strings.Fields(text(root, dir+"/life_time")) { // of the two kinds of cells that it may have
			// 1 is up to 10 %, 10 up to 100, 11 beyond; 0 and others are not defined (JESD84-B51, 7.4.31).
			if n, err := strconv.ParseUint(field, 0, 8); err == nil && n >= 1 && n <= 11 {
				w.Used = max(w.Used, int(n)*10)
			}
		}
		if n, err := strconv.ParseUint(text(root, dir+"/pre_eol_info"), 0, 8); err == nil && n <= 3 {
			w.Reserve = int(n)
		}
		if w.Used > 0 || w.Reserve > 0 {
			list = append(list, w)
		}
	}
	slices.SortStableFunc(list, func(a, b Wear) int { return max(b.Used, (b.Reserve-1)*50) - max(a.Used, (a.Reserve-1)*50) })
	return list
}
