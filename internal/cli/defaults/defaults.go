// Package defaults reads a person's file of defaults for the commands on the fleet. Its keys are flags, or commands with flags of
// theirs:
//
//	namespace: web
//	color: never
//	get:
//	  output: wide
//	rollout status:
//	  timeout: 5m
//
// A flag on the command line counts first, then its environment variable, then the command's key, then the key for all commands.
package defaults

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/internal/cli/commandtree"
	"petrel.dev/petrel/internal/cli/nearest"
)

// shared are the flags that may stand for all commands on the fleet, as all of them have these.
var shared = commandtree.ClusterFlags

// Error is that the file cannot be read; it names the file and the place. No flag of the command line is to blame.
type Error struct{ Err error }

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Path returns where the file is: $XDG_CONFIG_HOME/petrel/config.yaml, or ~/.config/petrel/config.yaml, on other systems beside other
// programs' settings; "" when there is no home.
func Path() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "petrel", "config.yaml")
}

// File are the defaults. The zero value has none.
type File struct {
	path     string
	all      map[string]any            // by flag
	commands map[string]map[string]any // by command and flag
}

// Read reads the file; one that does not exist is empty. app has the commands that it may name.
func Read(app *kong.Application, path string) (File, error) {
	f := File{path, map[string]any{}, map[string]map[string]any{}}
	if path == "" {
		return f, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	var content map[string]any
	if err := yaml.UnmarshalStrict(text, &content); err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	known := commands(app)
	for _, key := range slices.Sorted(maps.Keys(content)) {
		value := content[key]
		section, isSection := value.(map[string]any)
		switch flags := known[key]; {
		case slices.Contains(shared, key) && !isSection:
			f.all[key] = value
		case flags == nil:
			return f, fmt.Errorf("%s: %q is neither a command on the fleet nor one of the flags that all have (%s)%s", path, key, strings.Join(shared, ", "),
				nearest.Hint(key, slices.Concat(shared, slices.Collect(maps.Keys(known)))))
		case !isSection && value != nil:
			return f, fmt.Errorf("%s: %s is a command: below it stand flags, as in %s: {%s: ...}", path, key, key, flags[len(flags)-1])
		default:
			for flag := range section {
				if !slices.Contains(flags, flag) {
					return f, fmt.Errorf("%s: petrel %s has no flag --%s%s", path, key, flag, nearest.Hint(flag, flags))
				}
			}
			f.commands[key] = section
		}
	}
	return f, nil
}

// commands returns the flags of each command on the fleet: of those that choose a cluster.
func commands(app *kong.Application) map[string][]string {
	out := map[string][]string{}
	for _, n := range app.Leaves(true) {
		flags := names(commandtree.Flags(n))
		if onFleet(flags) {
			out[commandtree.Name(n)] = flags
		}
	}
	return out
}

func names(flags []*kong.Flag) (out []string) {
	for _, f := range flags {
		out = append(out, f.Name)
	}
	return out
}

func onFleet(flags []string) bool {
	for _, f := range shared {
		if !slices.Contains(flags, f) {
			return false
		}
	}
	return true
}

// Shared returns the default of a flag that all commands have, or "".
func (f File) Shared(flag string) string {
	v, ok := f.all[flag]
	if !ok {
		return ""
	}
	return fmt.Sprint(v)
}

// Resolver returns the defaults of the command that is parsed. path is read when the first command on the fleet is.
func Resolver(path string) kong.Resolver {
	var file *File
	return kong.ResolverFunc(func(k *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
		if parent.Command == nil {
			return nil, nil
		}
		if !onFleet(names(parent.Command.Flags)) {
			return nil, nil
		}
		if file == nil {
			f, err := Read(k.Model, path)
			if err != nil {
				return nil, &Error{Err: err}
			}
			file = &f
		}
		if v, ok := file.commands[commandtree.Name(parent.Command)][flag.Name]; ok {
			return text(v), nil
		}
		if v, ok := file.all[flag.Name]; ok {
			return text(v), nil
		}
		return nil, nil
	})
}

// text returns a value as it is written on the command line; a list with commas.
func text(v any) string {
	list, isList := v.([]any)
	if !isList {
		return fmt.Sprint(v)
	}
	words := make([]string, len(list))
	for i, w := range list {
		words[i] = fmt.Sprint(w)
	}
	return strings.Join(words, ",")
}

// BelowEnvironment keeps a resolver from what an environment variable has set already, which the parser would let it replace.
func BelowEnvironment(r kong.Resolver) kong.Resolver {
	return kong.ResolverFunc(func(k *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
		v, err := r.Resolve(k, parent, flag) // also checks the file
		for _, name := range flag.Tag.Envs {
			if os.Getenv(name) != "" { // an empty one is none
				return nil, err
			}
		}
		return v, err
	})
}
