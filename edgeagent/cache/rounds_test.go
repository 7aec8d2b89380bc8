package cache

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"petrel.dev/petrel/internal/wire"
)

// service returns a shared object whose content depends on n.
func service(uid string, n int) *wire.Object {
	o := &wire.Object{ID: wire.ID{Kind: wire.KindService, UID: uid}, Namespace: "ns", Name: uid,
		Data: fmt.Appendf(nil, `[{"ip":"10.42.0.1","node":"a"},{"ip":"10.42.0.%d","node":"b"},{"ip":"10.42.1.1","node":"c"}]`, n)}
	o.Version = wire.ContentVersion(o)
	return o
}

// Differences come to what the hub has: in memory, in every snapshot that was taken before, and after each restart.
func TestDifferences(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		c := open(t, dir)
		base := wire.NewShared()
		s := wire.NewSharing(base)
		s.UseRounds()
		s.Begin(c.Hash())
		want := map[string]string{}
		uid := func() string { return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "uid") }
		check := func() {
			if got := content(c); !maps.Equal(got, want) || c.Hash() != s.Hash() {
				rt.Fatalf("the cache has %v, the hub %v", got, want)
			}
		}
		send := func() {
			for b, _ := s.Next(1).(*wire.Batch); b != nil; b, _ = s.Next(1).(*wire.Batch) {
				before := c.Desired()
				was := fmt.Sprint(before)
				hash, err := c.Apply(b)
				if err != nil {
					rt.Fatal(err)
				}
				if fmt.Sprint(before) != was {
					rt.Fatal("a snapshot has changed")
				}
				s.Applied(&wire.Applied{Seq: b.Seq, Hash: hash})
			}
			check()
		}
		rt.Repeat(map[string]func(*rapid.T){
			"share": func(*rapid.T) {
				for range rapid.IntRange(1, 3).Draw(rt, "how many") {
					o := service(uid(), rapid.IntRange(1, 9).Draw(rt, "content"))
					base.Put(o)
					want[o.UID] = string(o.Data)
				}
				if r := base.Cut(); r != nil {
					s.SharedChanged(r)
				}
				send()
			},
			"unshare": func(*rapid.T) {
				u := uid()
				base.Remove(wire.ID{Kind: wire.KindService, UID: u})
				delete(want, u)
				if r := base.Cut(); r != nil {
					s.SharedChanged(r)
				}
				send()
			},
			"pod": func(*rapid.T) {
				p := put("pod", uint64(rapid.IntRange(1, 9).Draw(rt, "version")), "pod")
				s.Set(&p.Object, false)
				want["pod"] = "pod"
				send()
			},
			"restart": func(*rapid.T) {
				c.Close()
				c = open(t, dir)
				check()
			},
		})
		c.Close()
	})
}
