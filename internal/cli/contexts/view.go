package contexts

import (
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/tools/clientcmd/api/latest"

	"petrel.dev/petrel/internal/cli"
)

type view struct {
	Kubeconfig
	Context string `help:"With --minify: this context instead of the current one." placeholder:"NAME"`
	Raw     bool   `help:"With its secrets: keys, tokens and certificates."`
	Minify  bool   `help:"Only what the context needs."`
	Flatten bool   `help:"With the content of the files that it names: it can go to another machine then. Use --raw too."`
	Output  string `short:"o" enum:"yaml,json" default:"yaml" help:"${enum}." placeholder:"FORMAT"`
}

func (c *view) Run(s *cli.Streams) error {
	f := c.files()
	f.rules.DoNotResolvePaths = !c.Flatten // otherwise as they stand there
	config, err := f.load()
	if err != nil {
		return err
	}
	if c.Context != "" {
		if _, err := find(config, c.Context); err != nil {
			return err
		}
		config.CurrentContext = c.Context
	}
	if c.Minify {
		if err := api.MinifyConfig(config); err != nil {
			return err
		}
	}
	if c.Flatten {
		if err := api.FlattenConfig(config); err != nil {
			return err
		}
	}
	if !c.Raw {
		if err := api.RedactSecrets(config); err != nil {
			return err
		}
		api.ShortenConfig(config)
	}
	out, err := latest.Scheme.ConvertToVersion(config, latest.ExternalVersion)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return (&printers.JSONPrinter{}).PrintObj(out, s.Out)
	}
	return (&printers.YAMLPrinter{}).PrintObj(out, s.Out)
}
