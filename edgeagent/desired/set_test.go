package desired

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"petrel.dev/petrel/internal/wire"
)

func object(kind wire.Kind, name string, version uint64, data string) wire.Object {
	return wire.Object{ID: wire.ID{Kind: kind, UID: name}, Version: version, Namespace: "ns", Name: name, Data: []byte(data)}
}

// TestDecode checks that what does not change is the same object in the next Set, a member that does not decode is left out and
// logged, and a kind that this agent does not know is passed over.
func TestDecode(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	pod := object(wire.KindPod, "p", 1, `{"metadata":{"uid":"p","name":"p"}}`)
	cfg := object(wire.KindConfigMap, "cfg", 1, `{"data":{"a":"1"}}`)
	first := Decode([]wire.Object{pod, cfg, object(wire.KindService, "b", 1, `{"ns":"ns","name":"b"}`), object(wire.KindService, "a", 1, `{"ns":"ns","name":"a"}`),
		object(wire.KindSecret, "bad", 1, `{`), object("Dance", "d", 1, `{}`), object(wire.KindToken, "t", 1, `{"pod":"p","token":"T"}`)}, nil, log)
	if first.Pods["p"] == nil || first.ConfigMap("ns", "cfg") == nil || first.Secret("ns", "bad") != nil || len(first.Pods) != 1 {
		t.Errorf("%+v", first)
	}
	if len(first.Services) != 2 || first.Services[0].Name != "a" {
		t.Errorf("services are not sorted: %+v", first.Services)
	}
	if !strings.Contains(out.String(), "name=bad") || strings.Contains(out.String(), "Dance") {
		t.Errorf("log: %s", out.String())
	}
	cfg.Version, cfg.Data = 2, []byte(`{"data":{"a":"2"}}`)
	next := Decode([]wire.Object{pod, cfg}, first, log)
	if next.Pods["p"] != first.Pods["p"] {
		t.Error("a pod that has not changed is another object")
	}
	if next.ConfigMap("ns", "cfg") == first.ConfigMap("ns", "cfg") || next.ConfigMap("ns", "cfg").Data["a"] != "2" {
		t.Error("a change is not seen")
	}
	if len(next.Services) != 0 {
		t.Error("what the set does not name is still there")
	}
}

// FuzzDecode checks that whatever the hub's bytes are, the agent goes on with what it can read.
func FuzzDecode(f *testing.F) {
	kinds := []wire.Kind{wire.KindPod, wire.KindConfigMap, wire.KindSecret, wire.KindToken, wire.KindService, wire.KindNode, wire.KindPeer, wire.KindRuntimeClass}
	for i := range kinds {
		f.Add(uint8(i), []byte(`{"metadata":{"uid":"x"},"data":{"a":"MQ=="}}`))
		f.Add(uint8(i), []byte(`null`))
		f.Add(uint8(i), []byte(`[`))
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		good := object(wire.KindPod, "good", 1, `{"metadata":{"uid":"good"}}`)
		s := Decode([]wire.Object{{ID: wire.ID{Kind: kinds[int(kind)%len(kinds)], UID: "x"}, Version: 1, Data: data}, good}, nil, slog.New(slog.DiscardHandler))
		if s.Pods["good"] == nil {
			t.Error("one bad member has taken another with it")
		}
	})
}
