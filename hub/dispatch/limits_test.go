package dispatch

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	now, l := time.Unix(1e9, 0), limit{rate: 10, burst: 100}
	var b bucket
	for range 10 {
		if !b.take(now, l, 10) {
			t.Fatal("the burst is refused")
		}
	}
	if b.take(now, l, 1) {
		t.Fatal("more than the burst")
	}
	at := b.when(now, l, 10)
	if d := at.Sub(now); d < time.Second || d > time.Second+10*time.Millisecond {
		t.Errorf("ten more are there after %s", d)
	}
	if b.take(at.Add(-100*time.Millisecond), l, 10) || !b.take(at, l, 10) {
		t.Error("when is not when")
	}
	// What is larger than all the bucket holds waits until it is full, and is then paid for.
	at = b.when(at, l, 1000)
	if !b.take(at, l, 1000) || b.take(at.Add(time.Minute), l, 1) || !b.take(at.Add(100*time.Second), l, 1) {
		t.Error("one large thing")
	}
	b = bucket{}
	if b.take(now, l, 100); !b.take(now.Add(time.Hour), l, 100) || b.take(now, l, 1) {
		t.Error("a clock that goes back fills the bucket")
	}
}

func TestRefusalsLogged(t *testing.T) {
	now, r := time.Unix(1e9, 0), refusals{}
	logged := 0
	for range 1000 {
		if ok, _ := r.allow(now); ok {
			logged++
		}
	}
	if logged != maxRefusalsLogged {
		t.Errorf("%d of 1000 refusals logged", logged)
	}
	if ok, before := r.allow(now.Add(time.Minute)); !ok || before != 1000-maxRefusalsLogged {
		t.Errorf("a minute later: %v, %d before", ok, before)
	}
}
