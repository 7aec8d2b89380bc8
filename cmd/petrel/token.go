package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"petrel.dev/petrel/hub/auth/usertoken"
	"petrel.dev/petrel/internal/cli"
)

// tokenCmd is about the tokens of devices that join, which are objects of the cluster, and about those of users, which are in a file of
// the hub's machine: no client can give itself one.
type tokenCmd struct {
	Create tokenCreate     `cmd:"" help:"Make a token and print it: one that a device joins with, or one of a user (--user, on the hub's machine)."`
	List   tokenList       `cmd:"" aliases:"ls" help:"List the tokens, without their secrets: those that devices join with, or those of users (--users, on the hub's machine)."`
	Delete cli.TokenDelete `cmd:"" aliases:"rm" help:"Delete tokens of devices: nobody joins with them any more; nodes that have joined stay."`
	Revoke tokenRevoke     `cmd:"" help:"End tokens of users at once, also what they have open. On the hub's machine."`
}

type tokenCreate struct {
	cli.TokenCreate
	pkiDir
	User      string   `help:"Make a token of this user instead, as a client of the API; what the user may do is up to roles." placeholder:"NAME"`
	Group     []string `help:"Group that the user is in. May be given more than once." placeholder:"NAME" sep:"none"`
	Server    string   `help:"Where the hub is reached, as https://HOST:PORT. Default: what it is advertised as, or this machine's address." placeholder:"URL"`
	PrintFile bool     `name:"print-kubeconfig" help:"Print a kubeconfig with the token of --user instead of the token alone."`
}

func (c *tokenCreate) Run(ctx context.Context, s *cli.Streams) error {
	if c.User == "" {
		if len(c.Group) > 0 || c.PrintFile || c.Server != "" {
			return errors.New("--group, --server and --print-kubeconfig are for the token of a user: give --user")
		}
		return c.TokenCreate.Run(ctx, s)
	}
	if c.Uses != 1 || c.Description != "" || c.NamePattern != "" || c.Replace != "" {
		return errors.New("--uses, --description, --name-pattern and --replace are for the tokens of devices, not for one of a user")
	}
	admins, err := c.admins()
	if err != nil {
		return err
	}
	server := c.Server
	if c.PrintFile && server == "" {
		if server, err = serverFor(c.kubeconfig()); err != nil {
			return fmt.Errorf("%w; give --server", err)
		}
	}
	text, token, err := usertoken.Create(c.pki(), c.User, c.Group, c.TTL)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Err, "Token %s of user %s; end it with: petrel token revoke %s\n", token.ID, token.User, token.ID)
	if !c.PrintFile {
		fmt.Fprintln(s.Out, text)
		return nil
	}
	kubeconfig, err := admins.TokenKubeconfig(server, c.User, text)
	if err != nil {
		return err
	}
	_, err = s.Out.Write(kubeconfig)
	return err
}

func (d pkiDir) pki() string { return filepath.Join(d.DataDir, "pki") }

type tokenList struct {
	cli.TokenList
	pkiDir
	Users bool `help:"List the tokens of users."`
}

func (c *tokenList) Run(ctx context.Context, s *cli.Streams) error {
	if !c.Users {
		return c.TokenList.Run(ctx, s)
	}
	if _, err := c.admins(); err != nil {
		return err
	}
	list, err := usertoken.List(c.pki())
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(s.Err, "No tokens of users; make one with: petrel token create --user NAME")
		return nil
	}
	now := time.Now()
	out := tabwriter.NewWriter(s.Out, 6, 4, 3, ' ', 0)
	fmt.Fprintln(out, "ID\tUSER\tGROUPS\tEXPIRES IN\tAGE")
	for _, t := range list {
		expires := "never"
		if !t.Expires.IsZero() {
			expires = "expired"
			if left := t.Expires.Sub(now); left > 0 {
				expires = duration.HumanDuration(left)
			}
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", t.ID, t.User, cmp.Or(strings.Join(t.Groups, ","), "-"), expires, duration.HumanDuration(now.Sub(t.Created)))
	}
	return out.Flush()
}

type tokenRevoke struct {
	pkiDir
	Names []string `arg:"" name:"id-or-user" help:"Ids as petrel token list --users shows them, or users: all tokens of each."`
}

func (c *tokenRevoke) Run(s *cli.Streams) error {
	if _, err := c.admins(); err != nil {
		return err
	}
	for _, name := range c.Names {
		gone, err := usertoken.Revoke(c.pki(), name)
		if err != nil {
			return err
		}
		for _, t := range gone {
			fmt.Fprintf(s.Out, "token %s of user %s revoked\n", t.ID, t.User)
		}
	}
	return nil
}
