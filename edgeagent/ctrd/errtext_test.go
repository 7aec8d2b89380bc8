package ctrd

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// TestErrorTexts covers what errors without a type are taken for, each as it has arrived.
func TestErrorTexts(t *testing.T) {
	status := func(code int, text string) error {
		return fmt.Errorf("failed to resolve: %w", remoteerrors.ErrUnexpectedStatus{StatusCode: code, Status: text, RequestMethod: "HEAD", RequestURL: "https://r.test"})
	}
	for _, c := range []struct {
		err                     error
		busy, refused, shimLeft bool
	}{
		{err: status(429, "429 Too Many Requests"), busy: true},
		{err: status(503, "503"), busy: true},
		{err: errors.New("unexpected HEAD status code https://r.test: 502 Bad Gateway"), busy: true},
		{err: status(401, "401 Unauthorized"), refused: true},
		{err: errors.New("unexpected HEAD status code https://r.test: 403 Forbidden"), refused: true},
		{err: fmt.Errorf("r.test/app: %w", errdefs.ErrNotFound), refused: true},
		{err: status(418, "418 I'm a teapot")},
		{err: errors.New("ttrpc: closed: unknown"), shimLeft: true},
		{err: errors.New("dial unix /run/containerd/s/1: connect: connection refused: unknown"), shimLeft: true},
		{err: fmt.Errorf("ttrpc: %w", errdefs.ErrUnavailable), shimLeft: true},
		{err: fmt.Errorf("%w: %w", errShimLeft, errors.New("OCI runtime create failed: runc create failed: container's cgroup is not empty: 1 process(es) found")), shimLeft: true},
		{err: errors.New(`failed to create shim task: OCI runtime create failed: runc create failed: exec: "nope": executable file not found`)},
	} {
		if overloaded(c.err) != c.busy || refused(c.err) != c.refused || shimLeaving(c.err) != c.shimLeft {
			t.Errorf("%v: busy %v, refused %v, shim leaving %v", c.err, overloaded(c.err), refused(c.err), shimLeaving(c.err))
		}
	}
	for _, e := range byText {
		if e.text == "" || !strings.ContainsAny(e.seen, "0123456789") {
			t.Errorf("%+v: no version says where it was seen", e)
		}
	}
}

// TestTextsInOnePlace checks that nothing else here knows an error by its text.
func TestTextsInOnePlace(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") || e.Name() == "errtext.go" {
			continue
		}
		b, err := os.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "strings.Contains(err.Error()") {
			t.Errorf("%s looks into an error's text: give the text a meaning and a version in errtext.go", e.Name())
		}
	}
}
