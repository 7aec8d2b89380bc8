package complete

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

type cluster struct {
	Kubeconfig string `type:"path"`
	Context    string
	Namespace  string `short:"n"`
}

type get struct {
	cluster
	What     []string `arg:"" optional:"" name:"what"`
	Output   string   `short:"o" help:"wide, yaml or json."`
	All      bool     `short:"A" negatable:"" help:"All of them."`
	Filename []string `short:"f" placeholder:"FILE"`
	Strategy string   `enum:",merge,json" default:""`
	Secret   string   `hidden:""`
}

type tree struct {
	Get  get `cmd:"" aliases:"g" help:"Show objects."`
	Exec struct {
		cluster
		Pod     string   `arg:""`
		Command []string `arg:"" optional:"" passthrough:""`
	} `cmd:"" help:"Run."`
	Drain struct {
		cluster
		Nodes []string `arg:""`
	} `cmd:"" help:"Empty."`
	Rollout struct {
		Status get `cmd:"" help:"Follow."`
		Undo   get `cmd:"" help:"Back."`
	} `cmd:"" help:"Rollouts."`
	Explain struct {
		Path string `arg:"" name:"type.field"`
	} `cmd:"" help:"Document."`
	Shell struct {
		Shell string `arg:"" enum:"bash,zsh"`
	} `cmd:"" help:"Script."`
	Hidden struct{} `cmd:"" hidden:""`
}

// fleet has the same objects in each namespace, with the cluster that was asked in front of pods' names.
type fleet struct{ at Cluster }

func (f fleet) Types() []string { return []string{"pods", "nodes", "services", "pods"} }

func (f fleet) Names(typ string) []string {
	switch typ {
	case "pods", "pod", "po":
		return []string{f.at.Namespace + "web-1", f.at.Namespace + "web-2", f.at.Context + "db"}
	case "nodes":
		return []string{"pi1", "pi2"}
	case "namespaces":
		return []string{"default", "kube-system"}
	}
	return nil
}

func (f fleet) Contexts() []string { return []string{"home", f.at.Kubeconfig + "work"} }

func TestLine(t *testing.T) {
	parser, err := kong.New(&tree{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ line, want string }{
		{"", "drain exec explain get rollout shell"},
		{"g", "get"},
		{"nothing ", ""},
		{"rollout ", "status undo"},
		{"rollout s", "status"},
		{"-n kube-system rollout ", "status undo"},
		{"get ", "nodes pods services"},
		{"get po", "pods"},
		{"g po", "pods"},
		{"get pods,s", "pods,services"},
		{"get pods ", "db web-1 web-2"},
		{"get pods we", "web-1 web-2"},
		{"get pods web-1 we", "web-2"},
		{"get pods/we", "pods/web-1 pods/web-2"},
		{"get pods/web-1 ", "nodes pods services"},
		{"get pods/web-1 po/", "po/db po/web-1 po/web-2"},
		{"get unicorns ", ""},
		{"get -n a- pods a", "a-web-1 a-web-2"},
		{"get -na- pods a", "a-web-1 a-web-2"},
		{"get -An a- pods a", "a-web-1 a-web-2"},
		{"get --namespace=a- pods a", "a-web-1 a-web-2"},
		{"-n a- --context c- get pods ", "a-web-1 a-web-2 c-db"},
		{"get pods -o yaml ", "db web-1 web-2"},
		{"get -n ", "default kube-system"},
		{"get -n k", "kube-system"},
		{"-n k", "kube-system"},
		{"get --namespace=k", "--namespace=kube-system"},
		{"get --kubeconfig f --context ", "fwork home"},
		{"get -o ", "json wide yaml"},
		{"get --output=w", "--output=wide"},
		{"get --strategy ", "json merge"},
		{"get --n", "--namespace --no-all"},
		{"get --s", "--strategy"},
		{"get -f ", ":files"},
		{"get --filename=x", ":files"},
		{"get --kubeconfig ", ":files"},
		{"get --nope ", "nodes pods services"},
		{"exec ", "db web-1 web-2"},
		{"exec po/d", "po/db"},
		{"exec web-1 -- ", ""},
		{"exec web-1 -- -", ""},
		{"drain pi1 ", "pi2"},
		{"explain s", "services"},
		{"explain pods ", ""},
		{"shell ", "bash zsh"},
	} {
		words := strings.Split(c.line, " ")
		a := Line(parser.Model, words, func(at Cluster) Server { return fleet{at} })
		var got []string
		for _, w := range a.Words {
			got = append(got, w.Text)
		}
		if a.Files {
			got = append(got, ":files")
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("petrel %s<Tab>: %q, want %q", c.line, text, c.want)
		}
	}
}

// TestServerIsAskedWhenNeeded checks that commands and flags are completed without a hub.
func TestServerIsAskedWhenNeeded(t *testing.T) {
	parser, err := kong.New(&tree{})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{"", "g", "rollout ", "get --", "get -o ", "get -f ", "exec p -- "} {
		Line(parser.Model, strings.Split(l, " "), func(Cluster) Server {
			t.Errorf("petrel %s<Tab> asks the server", l)
			return fleet{}
		})
	}
}

func TestPrint(t *testing.T) {
	var b strings.Builder
	Answer{Words: []Word{{"get", "Show.\nMore."}, {"x", ""}}}.Print(&b)
	Answer{Files: true}.Print(&b)
	if b.String() != "get\tShow.\nx\t\n:files\n" {
		t.Errorf("%q", b.String())
	}
}
