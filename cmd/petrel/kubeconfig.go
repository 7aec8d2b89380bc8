package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/internal/cli"
)

type kubeconfigCmd struct {
	DataDir string `default:"/var/lib/petrel" type:"path" help:"Directory of the hub's state." placeholder:"DIR"`
	Server  string `help:"Where the hub is reached, as https://HOST:PORT. Default: what it is advertised as, or this machine's address." placeholder:"URL"`
}

func (c *kubeconfigCmd) Run(s *cli.Streams) error {
	file := c.DataDir + "/admin.kubeconfig"
	b, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return fmt.Errorf("no hub has run here with --data-dir %s: %s does not exist; start `petrel hub` or `petrel up` first, or give its --data-dir", c.DataDir, file)
	}
	if os.IsPermission(err) {
		return fmt.Errorf("%s is its owner's only: use sudo", file)
	}
	if err != nil {
		return err
	}
	written, err := serverOf(file)
	if err != nil {
		return err
	}
	server := c.Server
	if server == "" {
		server = reachable(written, ownAddress(), listens)
	}
	_, err = s.Out.Write(bytes.Replace(b, []byte("server: "+written), []byte("server: "+server), 1))
	return err
}

// serverFor returns the URL by which others reach the hub that has written a kubeconfig.
func serverFor(file string) (string, error) {
	server, err := serverOf(file)
	if err != nil {
		return "", err
	}
	return reachable(server, ownAddress(), listens), nil
}

// serverOf returns the URL of the hub in a kubeconfig that the hub has written.
func serverOf(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var cfg struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
			} `json:"cluster"`
		} `json:"clusters"`
	}
	if err := yaml.Unmarshal(text, &cfg); err != nil || len(cfg.Clusters) == 0 {
		return "", fmt.Errorf("%s names no cluster", file)
	}
	return cfg.Clusters[0].Cluster.Server, nil
}

// reachable returns the URL under which other machines reach the hub of this one. admin.kubeconfig, which is for this machine, has
// loopback unless the hub is advertised; kubeconfigs that are taken elsewhere need own, this machine's address, when the hub listens
// on that too. Its certificate has all addresses of the machine.
func reachable(server, own string, listens func(address string) bool) string {
	u, err := url.Parse(server)
	if err != nil || own == "" {
		return server
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err != nil || !ip.IsLoopback() {
		return server
	}
	address := net.JoinHostPort(own, u.Port())
	if !listens(address) {
		return server
	}
	u.Host = address
	return u.String()
}

// ownAddress returns the address that this machine sends to others from: that of its default route. "" when it has none.
func ownAddress() string {
	conn, err := net.Dial("udp", "192.0.2.1:9") // sends nothing
	if err != nil {
		return ""
	}
	defer conn.Close()
	host, _, _ := net.SplitHostPort(conn.LocalAddr().String())
	return host
}

// listens reports whether a program of this machine listens there.
func listens(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
