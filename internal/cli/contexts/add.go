package contexts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"petrel.dev/petrel/internal/cli"
)

type add struct {
	Kubeconfig
	From        string `arg:"" name:"from" help:"Kubeconfig file of the hub, as petrel kubeconfig prints it there; - is standard input. Or the hub's URL, with --token-file."`
	Context     string `arg:"" optional:"" name:"new-name" help:"Name of the context here. Default: the one that it has in the file, or the host of the URL."`
	FromContext string `help:"Which context of the file. Default: its current one." placeholder:"NAME"`
	TokenFile   string `help:"With a URL: file with the user's token, in its first line; - is standard input." placeholder:"FILE"`
	CAFile      string `name:"certificate-authority" type:"existingfile" help:"With a URL: certificate that the hub's is signed by, which is pki/ca.crt in its data directory. Default: the system's." placeholder:"FILE"`
	Use         bool   `help:"Use it from now on."`
	Replace     bool   `help:"Replace a context of that name, with its cluster and user."`
}

// Help shows the usual way.
func (*add) Help() string {
	return "ssh pi.local sudo petrel kubeconfig | petrel config add - home --use\n\n" +
		"takes in the hub on pi.local under the name home. Cluster and user get that name too. `petrel --context home get nodes` means it, also when it is not in use."
}

// entry is a context with its cluster and user, which hold their certificates and keys themselves.
type entry struct {
	name    string
	context api.Context
	cluster *api.Cluster
	user    *api.AuthInfo
}

func (c *add) Run(s *cli.Streams) error {
	e, err := c.read(s)
	if err != nil {
		return err
	}
	f := c.files()
	config, err := f.load()
	if err != nil {
		return err
	}
	home, err := e.home(f, config, c.Replace)
	if err != nil {
		return fmt.Errorf("%w; take another name: petrel config add %s NAME, or give --replace", err, c.From)
	}
	err = change(home, func(one *api.Config) error {
		one.Contexts[e.name], one.Clusters[e.name], one.AuthInfos[e.name] = &e.context, e.cluster, e.user
		return nil
	})
	if err != nil {
		return err
	}
	if e.user.Exec != nil {
		fmt.Fprintf(s.Err, "Warning: for its user every command runs the program %q, which the kubeconfig names: is it one that you know?\n", e.user.Exec.Command)
	}
	fmt.Fprintf(s.Out, "Context %q added to %s: %s\n", e.name, home, e.cluster.Server)
	if !c.Use && config.CurrentContext != "" {
		return nil
	}
	if err := use(f, e.name); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "Switched to context %q.\n", e.name)
	return nil
}

// home returns the file that takes the entry. One that replaces another goes where that one is, which must be one file: a part that
// stayed in a file before it would count instead.
func (e entry) home(f files, config *api.Config, replace bool) (string, error) {
	type part struct{ what, origin string }
	var parts []part
	if x := config.Contexts[e.name]; x != nil {
		parts = append(parts, part{"context", x.LocationOfOrigin})
	}
	if x := config.Clusters[e.name]; x != nil {
		parts = append(parts, part{"cluster", x.LocationOfOrigin})
	}
	if x := config.AuthInfos[e.name]; x != nil {
		parts = append(parts, part{"user", x.LocationOfOrigin})
	}
	if len(parts) == 0 {
		return f.main(), nil
	}
	if !replace {
		return "", fmt.Errorf("there is a %s %q already", parts[0].what, e.name)
	}
	for _, p := range parts[1:] {
		if p.origin != parts[0].origin {
			return "", fmt.Errorf("the context, cluster and user %q are in several files, %s and %s", e.name, parts[0].origin, p.origin)
		}
	}
	return f.home(parts[0].origin), nil
}

// read returns what is to be added.
func (c *add) read(s *cli.Streams) (entry, error) {
	if strings.HasPrefix(c.From, "https://") || strings.HasPrefix(c.From, "http://") {
		return c.fromURL(s)
	}
	if c.TokenFile != "" || c.CAFile != "" {
		return entry{}, errors.New("--token-file and --certificate-authority are for a URL: a kubeconfig has both in it")
	}
	config, err := readConfig(s, c.From)
	if err != nil {
		return entry{}, err
	}
	name := config.CurrentContext
	if c.FromContext != "" {
		name = c.FromContext
	}
	if name == "" {
		return entry{}, fmt.Errorf("%s has no current context: choose one with --from-context", c.From)
	}
	x, err := find(config, name)
	if err != nil {
		return entry{}, fmt.Errorf("%s: %w", c.From, err)
	}
	cluster, user := config.Clusters[x.Cluster], config.AuthInfos[x.AuthInfo]
	if cluster == nil || user == nil {
		return entry{}, fmt.Errorf("%s: the context %q has a cluster or a user that is not there", c.From, name)
	}
	cluster.LocationOfOrigin, user.LocationOfOrigin = "", ""
	e := entry{name, api.Context{Namespace: x.Namespace}, cluster, user}
	return e.named(c.Context), nil
}

func (e entry) named(name string) entry {
	if name != "" {
		e.name = name
	}
	e.context.Cluster, e.context.AuthInfo = e.name, e.name
	return e
}

// readConfig reads a kubeconfig. What it holds in other files, beside it, it holds itself afterwards.
func readConfig(s *cli.Streams, from string) (*api.Config, error) {
	var config *api.Config
	var err error
	if from == "-" {
		data, readErr := io.ReadAll(io.LimitReader(s.In, 1<<20))
		if readErr != nil {
			return nil, readErr
		}
		if len(bytes.TrimSpace(data)) == 0 {
			return nil, errors.New("standard input is empty: no kubeconfig came")
		}
		from = "standard input"
		config, err = clientcmd.Load(data)
	} else {
		config, err = clientcmd.LoadFromFile(from)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is no kubeconfig: %w", from, err)
	}
	if err := clientcmd.ResolveLocalPaths(config); err != nil {
		return nil, err
	}
	if err := api.FlattenConfig(config); err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return config, nil
}

func (c *add) fromURL(s *cli.Streams) (entry, error) {
	u, err := url.Parse(c.From)
	switch {
	case err != nil:
		return entry{}, err
	case u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return entry{}, fmt.Errorf("%q is no URL of a hub: write https://HOST:PORT", c.From)
	case c.TokenFile == "":
		return entry{}, errors.New("a URL needs --token-file with a user's token, which `petrel token create --user NAME` prints on the hub; or add what `petrel kubeconfig` prints there")
	case c.FromContext != "":
		return entry{}, errors.New("--from-context is for a kubeconfig, not for a URL")
	}
	var data []byte
	if c.TokenFile == "-" {
		data, err = io.ReadAll(io.LimitReader(s.In, 64<<10))
	} else {
		data, err = os.ReadFile(c.TokenFile)
	}
	if err != nil {
		return entry{}, err
	}
	token, _, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
	if token == "" {
		return entry{}, fmt.Errorf("--token-file %s holds no token", c.TokenFile)
	}
	cluster := api.NewCluster()
	cluster.Server = strings.TrimSuffix(c.From, "/")
	if c.CAFile != "" {
		if cluster.CertificateAuthorityData, err = os.ReadFile(c.CAFile); err != nil {
			return entry{}, err
		}
	}
	user := api.NewAuthInfo()
	user.Token = strings.TrimSpace(token)
	return entry{u.Hostname(), api.Context{}, cluster, user}.named(c.Context), nil
}
