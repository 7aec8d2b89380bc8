//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"

	"github.com/alecthomas/kong"

	"petrel.dev/petrel/edgeagent/identity"
	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/doctor"
	"petrel.dev/petrel/internal/install"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/nodename"
)

// targetFlags say where services are installed.
type targetFlags struct {
	Root string `default:"/" type:"path" help:"Directory with the files of an image, in which nothing is started. Default: this machine." placeholder:"DIR"`
	Init string `enum:",systemd,openrc,sysv" default:"" help:"Init system. Default: what is found." placeholder:"systemd|openrc|sysv"`
}

// installFlags are those of petrel install itself; all others are settings of what it installs.
type installFlags struct {
	targetFlags
	Fix          bool `help:"Switch the memory controller on in the kernel's command line of a Raspberry Pi, when it is off, and go on; it needs a reboot."`
	IgnoreChecks bool `help:"Install in spite of checks that fail."`
}

// notSettings are the names of the flags that petrel install keeps for itself.
var notSettings = []string{"root", "init", "fix", "ignore-checks", "help"}

type installCmd struct {
	Hub   installHubCmd   `cmd:"" help:"Make the hub a service of this machine. Flags of petrel hub become its settings."`
	Agent installAgentCmd `cmd:"" help:"Make the agent a service of this machine. Flags of petrel agent become its settings."`
}

type installHubCmd struct {
	installFlags
	hubCmd
}

func (c *installHubCmd) Run(ctx context.Context, kctx *kong.Context, s *cli.Streams, log *slog.Logger) error {
	if _, err := c.config(log); err != nil {
		return err
	}
	return c.install(ctx, s, "hub", c.DataDir, c.Listen, settingsOf(kctx))
}

type installAgentCmd struct {
	installFlags
	agentFlags
}

func (c *installAgentCmd) Run(ctx context.Context, kctx *kong.Context, s *cli.Streams, log *slog.Logger) error {
	if _, err := c.config(c.DataDir, log); err != nil {
		return err
	}
	settings := settingsOf(kctx)
	var err error
	if c.DataDir, err = c.dataDirOf(settings); err != nil {
		return err
	}
	if err := c.takeToken(s.In, settings); err != nil {
		return err
	}
	joins := c.Join != "" || c.JoinFile != "" || c.Root != "/"
	if !identity.KnowsHub(c.agentDir()) && !joins && !(install.Target{Root: c.Root}).Installed("agent") {
		return errors.New("this machine has joined no hub yet: give --join or --join-file with what `petrel token create` prints on the hub")
	}
	if err := c.showName(s); err != nil {
		return err
	}
	return c.install(ctx, s, "agent", c.DataDir, defaultListen, settings)
}

// showName prints what a pattern makes of this machine, before a service fails over it. In an image there is no machine yet.
func (c *installAgentCmd) showName(s *cli.Streams) error {
	pattern := nodename.Pattern(c.NodeName)
	if t, err := jointoken.Parse(c.Join); err == nil && pattern == "" {
		pattern = t.Names
	}
	if c.Root != "/" || pattern.IsPlain() {
		return nil
	}
	name, err := pattern.Name(os.DirFS("/"))
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "The node's name by the pattern %s is %s.\n", pattern, name)
	return nil
}

// defaultListen is an address for the checks of an agent, which do not look at it.
const defaultListen = ":6443"

// settingsOf are the flags that were given for the service, as its file of settings has them: a map is a list of KEY=VALUE.
func settingsOf(kctx *kong.Context) map[string]any {
	out := map[string]any{}
	for _, p := range kctx.Path {
		if p.Flag == nil || p.Resolved || slices.Contains(notSettings, p.Flag.Name) {
			continue
		}
		switch v := kctx.FlagValue(p.Flag).(type) {
		case bool, []string:
			out[p.Flag.Name] = v
		case map[string]string:
			var list []string
			for _, k := range slices.Sorted(maps.Keys(v)) {
				list = append(list, k+"="+v[k])
			}
			out[p.Flag.Name] = list
		default:
			out[p.Flag.Name] = fmt.Sprint(v)
		}
	}
	return out
}

// install checks this machine, and makes the service.
func (f *installFlags) install(ctx context.Context, s *cli.Streams, role install.Role, dataDir, listen string, settings map[string]any) error {
	target := f.target(s)
	if f.Root == "/" {
		if err := needRoot("installing a service"); err != nil {
			return err
		}
		if err := f.check(s, doctor.Role(role), dataDir, listen); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := target.Install(ctx, install.Service{Role: role, Binary: self, Settings: settings}); err != nil {
		return err
	}
	if f.Root == "/" && role == "hub" {
		if err := waitForHub(ctx, dataDir, listen); err != nil {
			return err
		}
	}
	if f.Root == "/" {
		fmt.Fprintf(s.Out, "petrel-%s runs, and starts with this machine.\n", role)
	} else {
		fmt.Fprintf(s.Out, "petrel-%s starts with the machine that gets %s.\n", role, f.Root)
	}
	return nil
}

// check makes the doctor's checks, and prints what is not in order. A failure is an error unless it was mended or is to be ignored.
func (f *installFlags) check(s *cli.Streams, role doctor.Role, dataDir, listen string) error {
	found, err := examine("/", dataDir, listen, true, role)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(f doctor.Finding) bool { return f.Result == doctor.OK })
	if len(found) == 0 {
		return nil
	}
	if err := printFindings(s.Err, found); err != nil {
		return err
	}
	off := func(f doctor.Finding) bool { return f.Name == doctor.CgroupMemory }
	if f.Fix && slices.ContainsFunc(found, off) {
		if err := fixMemory(s.Err, "/", found); err != nil {
			return err
		}
		found = slices.DeleteFunc(found, off)
	}
	if doctor.Failed(found) && !f.IgnoreChecks {
		return errors.New("nothing was installed, because checks of this machine fail; --ignore-checks installs all the same")
	}
	return nil
}

// target is where the flags say.
func (f targetFlags) target(s *cli.Streams) install.Target {
	t := install.Target{Root: f.Root, Init: f.Init, Changed: func(what, name string) { fmt.Fprintf(s.Out, "%s %s\n", what, name) }}
	if f.Root == "/" {
		t.Command = func(ctx context.Context, name string, args ...string) error {
			cmd := exec.CommandContext(ctx, name, args...)
			cmd.Stdout, cmd.Stderr = s.Err, s.Err
			return cmd.Run()
		}
	}
	return t
}

type uninstallCmd struct {
	targetFlags
	Role  []string `arg:"" optional:"" enum:"hub,agent" help:"What to uninstall: hub or agent. Default: what is installed."`
	Purge bool     `help:"Remove the data directory too: the hub's objects and keys, the node's identity, its images and volumes."`
}

func (c *uninstallCmd) Run(ctx context.Context, s *cli.Streams) error {
	target := c.target(s)
	if c.Root == "/" {
		if err := needRoot("uninstalling a service"); err != nil {
			return err
		}
	}
	roles := slices.Clone(install.Roles)
	if len(c.Role) > 0 {
		roles = slices.DeleteFunc(roles, func(r install.Role) bool { return !slices.Contains(c.Role, string(r)) })
	} else if !c.Purge {
		roles = slices.DeleteFunc(roles, func(r install.Role) bool { return !target.Installed(r) })
	}
	if len(roles) == 0 {
		fmt.Fprintln(s.Out, "Nothing is installed.")
	}
	slices.Reverse(roles) // the agent first, which ends its pods while the hub can still see that
	return target.Uninstall(ctx, c.Purge, roles...)
}
