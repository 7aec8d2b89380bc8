//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"petrel.dev/petrel/edgeagent/identity"
	"petrel.dev/petrel/internal/install"
	"petrel.dev/petrel/internal/jointoken"
)

// token returns the join token that the agent was started with: --join itself, standard input, or the file of --join-file.
func (c *agentFlags) token(in io.Reader, log *slog.Logger) (string, error) {
	switch {
	case c.Join == "-":
		token, err := readToken(in)
		if err != nil {
			return "", fmt.Errorf("--join -: %w", err)
		}
		return token, nil
	case c.JoinFile != "":
		token, err := c.tokenOfFile(log)
		if err != nil || token == "" {
			return "", err
		}
		if _, err := jointoken.Parse(token); err != nil {
			return "", fmt.Errorf("--join-file: %s: %w", c.JoinFile, err)
		}
		return token, nil
	}
	return c.Join, nil
}

// tokenOfFile reads --join-file. A token is for the first start: on a machine that has joined, its file may be gone, as those who copied
// it are advised to remove it.
func (c *agentFlags) tokenOfFile(log *slog.Logger) (string, error) {
	token, err := tokenFile(c.JoinFile)
	if errors.Is(err, fs.ErrNotExist) && identity.KnowsHub(c.agentDir()) {
		log.Info("the file of --join-file is gone, and not needed: this machine has joined", "file", c.JoinFile)
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("--join-file: %w", err)
	}
	return token, nil
}

// agentDir is where the agent remembers who it is, and its hub.
func (c *agentFlags) agentDir() string { return filepath.Join(c.DataDir, "agent") }

// tokenFile reads a file that holds a token.
func tokenFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	token, err := readToken(f)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return token, nil
}

// readToken reads all that there is, without the white space around it. Nothing at all is an error, because it would pass for no token.
func readToken(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxToken+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxToken {
		return "", fmt.Errorf("%w: it has more than %d bytes", jointoken.ErrNotToken, maxToken)
	}
	if token := strings.TrimSpace(string(b)); token != "" {
		return token, nil
	}
	_, err = jointoken.Parse("")
	return "", err
}

// forgetToken takes the token out of the settings of an agent that has joined with it. When that fails, it is tried again after the next
// welcome.
func forgetToken(token string, log *slog.Logger) {
	if token == "" {
		return
	}
	file, err := install.Target{Root: "/"}.ForgetToken(token)
	if err != nil {
		log.Warn("the join token stays in the agent's settings, where root can read it; this machine has joined and needs it no more", "error", err)
		return
	}
	if file != "" {
		log.Info("join token taken out of the settings: this machine has joined", "file", file)
	}
}

// takeToken finds the token that petrel install was given, checks it before anything is written, and puts it into the settings. The service
// takes it out again when it has joined, so that a file of it may go at once.
func (c *installAgentCmd) takeToken(in io.Reader, settings map[string]any) error {
	origin := "--join:"
	var err error
	switch {
	case c.Join == "-":
		if c.Join, err = readToken(in); err != nil {
			return fmt.Errorf("--join -: %w", err)
		}
	case c.JoinFile != "":
		origin = "--join-file: " + c.JoinFile + ":"
		if c.Join, err = c.tokenForInstall(settings); err != nil {
			return fmt.Errorf("--join-file: %w", err)
		}
	}
	if _, ok := settings["join"]; c.Join == "" && !ok { // otherwise it may be from the environment, which keeps it out of the process list
		return nil
	}
	needed, err := identity.NeedsToken(filepath.Join(c.Root, c.agentDir()), c.Join)
	if err != nil {
		return fmt.Errorf("%s %w", origin, err)
	}
	if !needed { // as when it is installed again in the same way: the settings would change, and the service start again
		delete(settings, "join")
		return nil
	}
	if _, kept := settings["join-file"]; !kept {
		settings["join"], settings["join-file"] = c.Join, nil
	}
	return nil
}

// tokenForInstall reads the file of --join-file, which is a setting only when it is in an image: there it is for the machine that gets the
// image. On a machine that has joined the file may be gone.
func (c *installAgentCmd) tokenForInstall(settings map[string]any) (string, error) {
	if c.Root != "/" {
		token, err := tokenFile(filepath.Join(c.Root, c.JoinFile))
		if !errors.Is(err, fs.ErrNotExist) {
			settings["join"] = nil
			return token, err
		}
	}
	delete(settings, "join-file")
	token, err := tokenFile(c.JoinFile)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return token, err
	case c.Root != "/":
		return "", fmt.Errorf("%w, and there is none in %s", err, c.Root)
	case identity.KnowsHub(c.agentDir()):
		return "", nil
	}
	return "", err
}

// dataDirOf returns the data directory that the service will have: by the flag, by the settings that are there, or the default.
func (c *installAgentCmd) dataDirOf(settings map[string]any) (string, error) {
	if _, ok := settings["data-dir"]; ok {
		return c.DataDir, nil
	}
	return install.Target{Root: c.Root}.DataDir("agent")
}
