//go:build linux

package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTokenFileMayGo checks that a machine which has joined starts without the file of its token, and one that has not says what is
// missing.
func TestTokenFileMayGo(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	c := agentCmd{agentFlags: agentFlags{JoinFile: filepath.Join(t.TempDir(), "token")}}
	c.DataDir = t.TempDir()
	if _, err := c.tokenOfFile(log); err == nil || !strings.Contains(err.Error(), "--join-file") {
		t.Errorf("a machine that has not joined: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(c.DataDir, "agent"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.DataDir, "agent", "hub"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := c.tokenOfFile(log); token != "" || err != nil {
		t.Errorf("a machine that has joined: %q, %v", token, err)
	}
	if err := os.WriteFile(c.JoinFile, []byte(" abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := c.tokenOfFile(log); token != "abc" || err != nil {
		t.Errorf("a file that is there: %q, %v", token, err)
	}
}
