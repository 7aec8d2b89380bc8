// Package doctor finds what would keep a hub or an agent from running well on a machine, before it crashes there, and says what to
// do about it. A check is a function of the machine's files: it starts nothing, loads nothing and changes nothing. Only
// EnableMemory and MeasureDisk write, and only when they are asked for.
package doctor

import (
	"io/fs"
	"slices"
	"strings"
	"time"
)

// Result is how serious a finding is.
type Result string

// Warn leaves a machine that works, with something to know about; on one that Fail is said of, part of Petrel does not work.
const (
	OK   Result = "ok"
	Warn Result = "warn"
	Fail Result = "fail"
)

// Finding is what one check has seen.
type Finding struct {
	Name   string `json:"name"`
	Result Result `json:"result"`
	What   string `json:"what"`
	// Do is what the person at the machine can do about it; empty where nothing needs to be done.
	Do string `json:"do,omitempty"`
}

// Role is what the machine is to be.
type Role string

// A machine may have both roles, as with `petrel up`.
const (
	Hub   Role = "hub"
	Agent Role = "agent"
)

// Machine is what the checks look at.
type Machine struct {
	Root     fs.FS     // the machine's files, "/" at its root; /proc and /sys among them
	PageSize int       // bytes
	Now      time.Time // what the machine's clock shows
	Sync     Sync      // whether something keeps that right
	DataDir  string    // absolute; need not be there yet
	Port     uint16    // that the hub is to listen on
	// Space returns the free and all bytes of the file system that an existing directory lies on.
	Space func(dir string) (free, total int64, err error)
	// Speed tries the file system of an existing directory, as MeasureDisk does; nil: it is not tried.
	Speed func(dir string) (Speed, error)
}

// check is one line of the table. look returns a finding without its name.
type check struct {
	name string
	hub  bool // whether hubs need it; agents need all but the port of hubs
	look func(m Machine) Finding
}

// CgroupMemory is the name of the check whose failure EnableMemory can mend.
const CgroupMemory = "cgroup-memory"

// checks are in the order of the table. A hub's are those that a machine without containers needs too.
var checks = []check{
	{"board", true, model},
	{"clock", true, clockSet},
	{"page-size", true, pageSize},
	{"disk", true, disk},
	{"disk-speed", true, diskSpeed},
	{"port", true, port},
	{"vxlan-port", false, tunnelPort},
	{"namespaces", false, namespaces},
	{"overlayfs", false, overlayfs},
	{"modules", false, modules},
	{CgroupMemory, false, cgroupMemory},
	{"swap", true, swap},
	{"neighbours", false, neighbours},
	{"power", true, power},
	{"temperature", true, temperature},
	{"wear", true, wear},
}

// Examine makes all checks that the roles ask for.
func Examine(m Machine, roles ...Role) []Finding {
	hub, agent := slices.Contains(roles, Hub), slices.Contains(roles, Agent)
	var out []Finding
	for _, c := range checks {
		if c.name == "port" && !hub || c.name == "disk-speed" && m.Speed == nil || !agent && !c.hub {
			continue
		}
		f := c.look(m)
		f.Name = c.name
		out = append(out, f)
	}
	return out
}

// Failed reports whether one of the findings is a failure.
func Failed(found []Finding) bool {
	return slices.ContainsFunc(found, func(f Finding) bool { return f.Result == Fail })
}

// text returns a file of the machine without the white space and zero bytes at its ends, empty when it cannot be read.
func (m Machine) text(name string) string {
	b, err := fs.ReadFile(m.Root, name)
	if err != nil {
		return ""
	}
	return strings.Trim(string(b), " \t\n\x00")
}

// has reports whether the machine has the file or directory.
func (m Machine) has(name string) bool {
	_, err := fs.Stat(m.Root, name)
	return err == nil
}

// glob returns the names that match. The patterns of this package are well formed, which is all that Glob can complain about.
func (m Machine) glob(pattern string) []string {
	names, _ := fs.Glob(m.Root, pattern)
	return names
}
