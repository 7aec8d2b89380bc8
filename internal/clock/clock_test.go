package clock

import (
	"testing"
	"time"
)

func TestSane(t *testing.T) {
	if got := Sane(time.Unix(1000, 0)); !got.Equal(epoch) {
		t.Errorf("a clock of 1970 gives %s", got)
	}
	later := epoch.Add(time.Hour)
	if got := Sane(later); !got.Equal(later) {
		t.Errorf("a good clock gives %s", got)
	}
}
