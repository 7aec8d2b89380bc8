package contain_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"petrel.dev/petrel/internal/contain"
)

func TestPanicBecomesAnErrorOfItsKey(t *testing.T) {
	var buf bytes.Buffer
	log := slog.New(slog.NewTextHandler(&buf, nil))
	before := contain.Counts()["test/site"]
	cause := errors.New("poison")
	for range 3 {
		err := contain.Do(log, "test/site", "default/bad", func() error { panic(cause) })
		var p *contain.Panic
		if !errors.As(err, &p) || p.Key != "default/bad" || !errors.Is(err, cause) {
			t.Fatalf("got %v", err)
		}
	}
	if err := contain.Do(log, "test/site", "default/good", func() error { return nil }); err != nil {
		t.Fatalf("the next key: %v", err)
	}
	if n := contain.Counts()["test/site"] - before; n != 3 {
		t.Errorf("counted %d panics, want 3", n)
	}
	if n := strings.Count(buf.String(), "panic contained"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, buf.String())
	}
	if !strings.Contains(buf.String(), "contain_test.go") {
		t.Errorf("the log has no stack of where it happened:\n%s", buf.String())
	}
}

func TestInjectedFault(t *testing.T) {
	remove := contain.Inject(func(site, key string) {
		if site == "test/inject" && key == "default/bad" {
			panic("injected")
		}
	})
	ran := map[string]bool{}
	work := func(key string) error {
		return contain.Do(nil, "test/inject", key, func() error { ran[key] = true; return nil })
	}
	if err := work("default/bad"); err == nil || ran["default/bad"] {
		t.Errorf("injected fault: err %v, ran %v", err, ran)
	}
	if err := work("default/good"); err != nil || !ran["default/good"] {
		t.Errorf("other key: err %v, ran %v", err, ran)
	}
	remove()
	if err := work("default/bad"); err != nil || !ran["default/bad"] {
		t.Errorf("after removal: err %v, ran %v", err, ran)
	}
}

func TestLongValuesAreCutInTheLog(t *testing.T) {
	var buf bytes.Buffer
	log := slog.New(slog.NewTextHandler(&buf, nil))
	_ = contain.Do(log, "test/long", "k", func() error { panic(strings.Repeat("x", 1<<20)) })
	if buf.Len() > 64<<10 {
		t.Errorf("a panic of 1 MiB logged %d bytes", buf.Len())
	}
}
