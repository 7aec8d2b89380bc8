package contexts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"petrel.dev/petrel/internal/durable"
)

// Kubeconfig is the flag that says which file; without it the list of $KUBECONFIG, or ~/.kube/config.
type Kubeconfig struct {
	Kubeconfig string `help:"Kubeconfig file. Default: the files of $$KUBECONFIG, or ~/.kube/config." placeholder:"FILE" type:"path"`
}

// files are the user's kubeconfig: one file, or several that count as one.
type files struct {
	rules *clientcmd.ClientConfigLoadingRules
}

func (k Kubeconfig) files() files {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = k.Kubeconfig
	rules.DoNotResolvePaths = true // what is written back is as it was
	rules.WarnIfAllMissing = false
	return files{rules}
}

// load returns all of them as one. A file that does not exist is empty.
func (f files) load() (*api.Config, error) {
	config, err := f.rules.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return api.NewConfig(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return config, nil
}

// main returns the file that takes what is in none yet, and the choice of the current context, as in kubectl.
func (f files) main() string { return f.rules.GetDefaultFilename() }

// home returns the file that a cluster, user or context is in by its origin; for a new one the main file.
func (f files) home(origin string) string {
	if origin == "" {
		return f.main()
	}
	return origin
}

// lockWait is how long another program may be busy with a file before that is an error.
const lockWait = 2 * time.Second

// lock keeps others from changing a file at the same time: kubectl and whatever else uses client-go honour the same lock.
func lock(path string) (unlock func(), err error) {
	name := path + ".lock"
	for end := time.Now().Add(lockWait); ; time.Sleep(50 * time.Millisecond) {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0)
		if err == nil {
			f.Close()
			return func() { _ = os.Remove(name) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("another program is changing %s, or was cut off while it did: if none is, remove %s", path, name)
		}
	}
}

// change lets f change the content of one file, and writes it: as a whole or not at all, readable by its owner only. A link to a file
// stays one.
func change(path string, f func(*api.Config) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	unlock, err := lock(path)
	if err != nil {
		return err
	}
	defer unlock()
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		target, err = path, nil
	}
	if err != nil {
		return err
	}
	config, err := clientcmd.LoadFromFile(target)
	if errors.Is(err, fs.ErrNotExist) {
		config, err = api.NewConfig(), nil
	}
	if err != nil {
		return fmt.Errorf("kubeconfig %s: nothing was changed: %w", path, err)
	}
	if err := f(config); err != nil {
		return err
	}
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return durable.WriteFile(target, data, 0o600)
}
