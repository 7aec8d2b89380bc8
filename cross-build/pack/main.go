// Command pack makes what a release has beside its binaries. cross-build/cross.sh calls it.
//
//	pack sbom -root . -programs bin/programs/arm64 -version v1 -spdx OUT.spdx.json -licenses OUT.txt BINARY
//	pack deb  -version v1 -arch arm64 ... DIRECTORY
//	pack sign -key FILE -comment TEXT -public FILE FILE
//
// It is a module of its own, so that petrel's has none of its dependencies.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"petrel.dev/petrel/cross-build/pack/deb"
	"petrel.dev/petrel/cross-build/pack/inventory"
	"petrel.dev/petrel/cross-build/pack/notices"
	"petrel.dev/petrel/cross-build/pack/sign"
	"petrel.dev/petrel/cross-build/pack/spdx"
)

// commands are what the first argument names.
var commands = map[string]func(args []string) error{"sbom": sbomCommand, "deb": debCommand, "sign": signCommand}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: pack sbom|deb|sign [FLAGS] FILE")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

// parse reads the flags and returns the one argument behind them.
func parse(f *flag.FlagSet, args []string) (string, error) {
	if err := f.Parse(args); err != nil {
		return "", err
	}
	if f.NArg() != 1 {
		return "", fmt.Errorf("pack %s: one file is needed, not %d", f.Name(), f.NArg())
	}
	return f.Arg(0), nil
}

// epoch returns the time that everything made here carries: SOURCE_DATE_EPOCH, as reproducible builds have it.
func epoch() (time.Time, error) {
	n, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(n, 0).UTC(), nil
}

func sbomCommand(args []string) error {
	f := flag.NewFlagSet("sbom", flag.ContinueOnError)
	var s inventory.Source
	f.StringVar(&s.Root, "root", ".", "directory of petrel's go.mod")
	f.StringVar(&s.Programs, "programs", "", "directory of the programs inside the binary; none are inside when it is empty")
	f.StringVar(&s.Version, "version", "", "petrel's version")
	document := f.String("spdx", "", "file for the SPDX document")
	text := f.String("licenses", "", "file for the licences and notices of what is inside")
	file, err := parse(f, args)
	if err != nil {
		return err
	}
	at, err := epoch()
	if err != nil {
		return err
	}
	b, err := s.Read(file)
	if err != nil {
		return err
	}
	out, err := spdx.JSON(b, at)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(*document, out, 0o644), os.WriteFile(*text, []byte(notices.Text(b)), 0o644))
}

func debCommand(args []string) error {
	f := flag.NewFlagSet("deb", flag.ContinueOnError)
	var p deb.Package
	f.StringVar(&p.Version, "version", "", "petrel's version")
	f.StringVar(&p.Arch, "arch", "", "Debian's name of the architecture")
	f.StringVar(&p.Maintainer, "maintainer", "", "NAME <ADDRESS>")
	f.StringVar(&p.Binary, "binary", "", "the binary")
	f.StringVar(&p.Units, "units", "cross-build/systemd", "directory of the units")
	f.StringVar(&p.Man, "man", "", "directory of the man pages")
	f.StringVar(&p.Completion, "completion", "", "directory of the scripts bash, zsh and fish")
	f.StringVar(&p.SBOM, "sbom", "", "SPDX document")
	f.IntVar(&p.Level, "level", 19, "of zstd, 1 to 19")
	licenses := f.String("licenses", "", "files with licences, separated by commas")
	dir, err := parse(f, args)
	if err != nil {
		return err
	}
	p.Licenses = strings.Split(*licenses, ",")
	if p.Time, err = epoch(); err != nil {
		return err
	}
	_, err = p.Write(dir)
	return err
}

func signCommand(args []string) error {
	f := flag.NewFlagSet("sign", flag.ContinueOnError)
	key := f.String("key", "", "secret key, as minisign keeps it; SIGN_PASSWORD has its password")
	comment := f.String("comment", "", "trusted comment")
	public := f.String("public", "", "file for the public key")
	file, err := parse(f, args)
	if err != nil {
		return err
	}
	k, err := sign.Key(*key, os.Getenv("SIGN_PASSWORD"))
	if err != nil {
		return err
	}
	return errors.Join(sign.File(k, file, *comment), sign.Public(k, *public))
}
