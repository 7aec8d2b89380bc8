// Command conformance measures how much of Kubernetes' conformance suite Petrel passes: it builds the suite and its images
// from upstream's Go modules, starts a hub and two agents as processes on simulated machines, runs the tests, prints a table
// by SIG and what failed, and compares with passing.txt: a test that is listed there and fails is an error.
//
//	suite/     upstream's tests as one binary, with limits that fit a daily measure
//	build.go   the binaries: suite, ginkgo, kubectl, the programs inside the images
//	images.go  the images, made here from those binaries and Debian packages; nothing comes from elsewhere
//	registry.go the same images for tests that ask for a pull, served on the hub's machine
//	cluster.go three network namespaces on a switch, a hub and two agents in them
//	run.go     one run of ginkgo, parallel or serial, and its report
//	report.go  table, comparison, docs/conformance.md
//
// It needs root, containerd, runc, iproute2, nsenter, mmdebstrap and busybox-static; `make conformance` installs them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	petrel  string // the binary under test
	root    string // of the repository
	focus   string // regular expression on test names, "" for all
	sig     string // such as "node", "" for all
	procs   int    // of the parallel part
	short   bool   // only the tests of short.txt
	update  bool   // add what passes to passing.txt and, after a whole run, write docs/conformance.md
	keep    bool   // leave the cluster's directory, logs and reports
	skipRun string // report of an earlier run to evaluate instead of running
}

func main() {
	var o options
	flag.StringVar(&o.petrel, "petrel", "../../bin/petrel", "the petrel `binary` to test")
	flag.StringVar(&o.root, "root", "../..", "the repository's `directory`")
	flag.StringVar(&o.focus, "focus", os.Getenv("FOCUS"), "only tests whose name matches this `regexp`")
	flag.StringVar(&o.sig, "sig", os.Getenv("SIG"), "only tests of this SIG, such as node")
	flag.IntVar(&o.procs, "procs", 10, "tests at a time in the parallel part: most of a test is waiting")
	flag.BoolVar(&o.short, "short", false, "only the tests of short.txt, as in make test")
	flag.BoolVar(&o.update, "update", false, "add tests that pass to passing.txt; after a whole run also write docs/conformance.md")
	flag.BoolVar(&o.keep, "keep", false, "leave logs and reports in the run's directory")
	flag.StringVar(&o.skipRun, "results", "", "evaluate this results `file` of an earlier run, run nothing")
	serve := flag.String("serve-images", "", "only serve the images of this `archive` to the nodes; the program starts itself so")
	blobs := flag.String("blobs", "", "with -serve-images: a `directory` for their content")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *serve != "" {
		if err := serveImages(ctx, *serve, *blobs); err != nil {
			fmt.Fprintln(os.Stderr, "conformance:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.skipRun != "" {
		res, err := readResults(o.skipRun)
		if err != nil {
			return err
		}
		return evaluate(o, res, os.Stdout)
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: it makes network namespaces and runs containers; run it with sudo, or make conformance as root")
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	b, err := build(ctx, o.root, cache, o.short)
	if err != nil {
		return err
	}
	archive, err := images(ctx, b, cache, o.short)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "petrel-conformance-")
	if err != nil {
		return err
	}
	defer func() {
		if o.keep {
			fmt.Println("logs and reports:", dir)
			return
		}
		os.RemoveAll(dir)
	}()
	petrel, err := filepath.Abs(o.petrel)
	if err != nil {
		return err
	}
	c, err := startCluster(ctx, petrel, dir, archive)
	defer c.stop()
	if err != nil {
		return err
	}
	began := time.Now()
	res, err := runSuite(ctx, o, b, c)
	if err != nil {
		return err
	}
	fmt.Printf("%d tests in %s\n", len(res.Tests), time.Since(began).Round(time.Second))
	if err := res.write(filepath.Join(cache, "results.json")); err != nil {
		return err
	}
	return evaluate(o, res, os.Stdout)
}

// cacheDir is where binaries and images stay between runs.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache directory: %w; set HOME or XDG_CACHE_HOME", err)
	}
	dir := filepath.Join(base, "petrel-conformance")
	return dir, os.MkdirAll(dir, 0o755)
}
