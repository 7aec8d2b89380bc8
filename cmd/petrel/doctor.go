//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/storage"
	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/doctor"
)

type doctorCmd struct {
	Role    []string `arg:"" optional:"" enum:"hub,agent" help:"What the machine is to be: hub or agent. Default: both."`
	DataDir string   `default:"/var/lib/petrel" type:"path" help:"Directory that all state is to lie in." placeholder:"DIR"`
	Listen  string   `default:":6443" help:"Address and port that the hub is to have." placeholder:"[HOST]:PORT"`
	Output  string   `short:"o" enum:"table,json" default:"table" help:"Form of the output: ${enum}." placeholder:"FORM"`
	Fix     bool     `help:"Switch the memory controller on in the kernel's command line of a Raspberry Pi, when it is off; a copy of the line stays beside it."`
	Disk    bool     `help:"Try how fast the disk of the data directory is: writes 16 MiB, reads them and takes them away."`
	Root    string   `hidden:"" default:"/" type:"path" help:"Directory with the files of the machine."`
}

func (c *doctorCmd) Run(s *cli.Streams) error {
	roles := []doctor.Role{doctor.Hub, doctor.Agent}
	if len(c.Role) > 0 {
		roles = nil
		for _, r := range c.Role {
			roles = append(roles, doctor.Role(r))
		}
	}
	found, err := examine(c.Root, c.DataDir, c.Listen, c.Disk, roles...)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		e := json.NewEncoder(s.Out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		err = e.Encode(map[string]any{"findings": found})
	} else {
		err = printFindings(s.Out, found)
	}
	if err != nil {
		return err
	}
	if c.Fix {
		if err := fixMemory(s.Err, c.Root, found); err != nil {
			return err
		}
	}
	if doctor.Failed(found) {
		return &cli.ExitError{Code: 1}
	}
	return nil
}

// examine makes the doctor's checks of the machine whose files are below root. With trial it tries the disk too.
func examine(root, dataDir, listen string, trial bool, roles ...doctor.Role) ([]doctor.Finding, error) {
	_, text, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("--listen %q is not [HOST]:PORT", listen)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("--listen %q has no port from 1 to 65535", listen)
	}
	m := doctor.Machine{
		Root: os.DirFS(root), PageSize: os.Getpagesize(), Now: time.Now(), DataDir: dataDir, Port: uint16(port),
		Space: func(dir string) (free, total int64, err error) {
			space, err := storage.Look(dir)
			return space.Free, space.Total, err
		},
	}
	if trial {
		m.Speed = doctor.MeasureDisk
	}
	if root == "/" {
		m.Sync = synchronised()
	}
	return doctor.Examine(m, roles...), nil
}

// synchronised asks the kernel whether something disciplines its clock, as timedatectl does.
func synchronised() doctor.Sync {
	var t unix.Timex // without a mode it only reads
	if _, err := unix.Adjtimex(&t); err != nil {
		return doctor.SyncUnknown
	}
	if t.Status&unix.STA_UNSYNC != 0 {
		return doctor.Unsynced
	}
	return doctor.Synced
}

// printFindings prints a table, and below it what is to be done.
func printFindings(out io.Writer, found []doctor.Finding) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "CHECK\tRESULT\tFINDING")
	for _, f := range found {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, f.Result, f.What)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, f := range found {
		if f.Do != "" {
			fmt.Fprintf(out, "\n%s: %s\n", f.Name, f.Do)
		}
	}
	return nil
}

// fixMemory switches the memory controller on for the next boot when that is among what fails.
func fixMemory(notes io.Writer, root string, found []doctor.Finding) error {
	off := func(f doctor.Finding) bool { return f.Name == doctor.CgroupMemory && f.Result == doctor.Fail }
	if !slices.ContainsFunc(found, off) {
		fmt.Fprintln(notes, "\nThere is nothing that --fix can change.")
		return nil
	}
	file, changed, err := doctor.EnableMemory(root)
	if err != nil {
		return err
	}
	if changed {
		fmt.Fprintf(notes, "\n%s switches the memory controller on; the old line is in %s.petrel. Reboot now.\n", file, file)
		return nil
	}
	fmt.Fprintf(notes, "\n%s switches the memory controller on already. Reboot now.\n", file)
	return nil
}
