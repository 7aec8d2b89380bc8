package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/nodename"
)

// epochBlock is how many epochs are reserved with one write: connections are many, writes wear flash.
const epochBlock = 256

// Hub is what a device remembers of its hub. It is used by one goroutine.
type Hub struct {
	dir     string
	state   hubFile
	epoch   uint64          // last handed out
	given   jointoken.Token // of this start
	turn    int             // which address is tried first
	unsaved bool            // the file is behind state: the disk did not take it
}

// maxAddresses is how many addresses of a hub are remembered.
const maxAddresses = 8

type hubFile struct {
	Version int `json:"version"`
	jointoken.Cluster
	Node    string `json:"node,omitempty"`
	History string `json:"history,omitempty"`
	TokenID string `json:"tokenID,omitempty"`
	Secret  string `json:"secret,omitempty"`
	// Names is the pattern of the token: a device that is started again before its first welcome may not have that any more.
	Names    nodename.Pattern `json:"names,omitempty"`
	Reserved uint64           `json:"epochsReserved"`
	// Unknown is true from when a hub said that it does not know the device, which was a node, until one welcomes it again.
	Unknown bool `json:"unknown,omitempty"`
}

// takes returns an error when a device that has joined belongs to another cluster than the token.
func (f hubFile) takes(t jointoken.Token, dir string) error {
	if f.Node == "" || f.ID == t.ID {
		return nil
	}
	return fmt.Errorf("the join token is for cluster %s, this device belongs to cluster %s; to move it, remove %s first", t.ID, f.ID, dir)
}

// joinedWith reports whether the device is a node by this very token.
func (f hubFile) joinedWith(t jointoken.Token) bool {
	return f.Node != "" && f.ID == t.ID && f.TokenID == t.TokenID && f.Secret == "" && !f.Unknown
}

// ErrNoHub is a device that has never joined and has no token.
var ErrNoHub = errors.New("this device has not joined a hub: start the agent with --join TOKEN, or --join-file FILE; get a token on the hub with: petrel token create")

// LoadHub reads what the device remembers, and takes a join token in if there is one (empty: none). A token for another
// cluster is refused once the device has joined one: its pods are that cluster's.
func LoadHub(dir, token string) (*Hub, error) {
	h := &Hub{dir: dir}
	var err error
	h.state, err = readHub(dir)
	known := err == nil
	switch {
	case errors.Is(err, errDamaged) && token == "":
		return nil, fmt.Errorf("%w; start the agent once with a new join token", err)
	case err != nil && !errors.Is(err, errDamaged) && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("hub memory: %w", err)
	}
	if token != "" {
		t, err := jointoken.Parse(token)
		if err != nil {
			return nil, err
		}
		if err := h.state.takes(t, dir); err != nil {
			return nil, err
		}
		h.given = t
		if !known || h.state.TokenID != t.TokenID {
			h.state.Version, h.state.Cluster, h.state.TokenID, h.state.Secret, h.state.Names = 1, t.Cluster, t.TokenID, t.Secret, t.Names
			if err := h.save(); err != nil {
				return nil, err
			}
			known = true
		}
	}
	if !known {
		return nil, ErrNoHub
	}
	h.epoch = h.state.Reserved
	return h, nil
}

// Naming returns what the name of the device with this directory may come from, before anything is made there: the name that the hub
// knows it by, empty before the first welcome, and the pattern of its token. What cannot be read is left out: LoadHub reports it.
func Naming(dir, token string) (joined string, names nodename.Pattern) {
	state, _ := readHub(dir)
	joined, names = state.Node, state.Names
	if t, err := jointoken.Parse(token); err == nil {
		names = t.Names
	}
	return joined, names
}

// hubPath is where the device with this directory remembers its hub.
func hubPath(dir string) string { return filepath.Join(dir, "hub") }

// errDamaged is a file that this version cannot read.
var errDamaged = errors.New("damaged or of a newer version")

// readHub returns what the device with this directory remembers, nothing with any error.
func readHub(dir string) (hubFile, error) {
	b, err := os.ReadFile(hubPath(dir))
	if err != nil {
		return hubFile{}, err
	}
	var state hubFile
	if err := json.Unmarshal(b, &state); err != nil || state.Version != 1 {
		return hubFile{}, fmt.Errorf("%s is %w", hubPath(dir), errDamaged)
	}
	return state, nil
}

// KnowsHub reports whether the device with this directory remembers a hub: it starts without a token then.
func KnowsHub(dir string) bool {
	_, err := os.Stat(hubPath(dir))
	return err == nil
}

// NeedsToken reports whether the device with this directory would do anything with the token: not when it is a node by it already, and
// its hub knows it. Its error is that of LoadHub for a token that the device does not take; nothing is written.
func NeedsToken(dir, token string) (bool, error) {
	t, err := jointoken.Parse(token)
	if err != nil {
		return false, err
	}
	state, _ := readHub(dir) // LoadHub takes any token in place of what it cannot read
	if err := state.takes(t, dir); err != nil {
		return false, err
	}
	return !state.joinedWith(t), nil
}

func (h *Hub) save() error {
	err := save(h.dir, hubPath(h.dir), h.state)
	if h.unsaved = err != nil; h.unsaved {
		return fmt.Errorf("hub memory: %w", err)
	}
	return nil
}

// Cluster is where and who the hub is.
func (h *Hub) Cluster() jointoken.Cluster { return h.state.Cluster }

// Token is the join secret to offer: the one given at this start, or one that has not led to a welcome yet. A hub that
// knows the device does not look at it.
func (h *Hub) Token() (id, secret string) {
	if h.given.Secret != "" {
		return h.given.TokenID, h.given.Secret
	}
	return h.state.TokenID, h.state.Secret
}

// Removed notes that the hub has removed the device. The token of this start is not offered again, or deleting a Node would
// only make it come back.
func (h *Hub) Removed() error {
	h.given = jointoken.Token{}
	if h.state.Secret == "" && h.state.Unknown && !h.unsaved {
		return nil
	}
	h.state.Secret, h.state.Unknown = "", true
	return h.save()
}

// Refused notes that the hub does not know the device any more, and not why: a token is of use to it again.
func (h *Hub) Refused() error {
	if h.state.Unknown && !h.unsaved {
		return nil
	}
	h.state.Unknown = true
	return h.save()
}

// Epoch is the last one handed out.
func (h *Hub) Epoch() uint64 { return h.epoch }

// Turn gives the hub's addresses, each time beginning with the next one; after Worked, with that.
func (h *Hub) Turn() []string {
	a := h.state.Addresses
	if len(a) == 0 {
		return nil
	}
	k := h.turn % len(a)
	h.turn++
	return append(append([]string(nil), a[k:]...), a[:k]...)
}

// Node is the name that the hub knows this device by; empty before the first welcome.
func (h *Hub) Node() string { return h.state.Node }

// History names the hub's store as it was at the last welcome; empty before the first of a hub that names its history.
func (h *Hub) History() string { return h.state.History }

// Welcomed remembers a welcome: the node's name, the history of the hub's store, and the hub's addresses. The secret is no longer needed. Addresses that the
// hub does not name stay behind those that it does, latest first: they may be the only ones that lead there from here (a
// name, a router's forwarded port), or again tomorrow. An error means that the disk has not taken it; the next welcome
// tries again.
func (h *Hub) Welcomed(node, history string, addresses []string) error {
	addresses = slices.Clone(addresses)
	for _, a := range h.state.Addresses {
		if len(addresses) < maxAddresses && !slices.Contains(addresses, a) {
			addresses = append(addresses, a)
		}
	}
	if !h.unsaved && h.state.Node == node && h.state.History == history && h.state.Secret == "" && !h.state.Unknown && slices.Equal(h.state.Addresses, addresses) {
		return nil
	}
	h.state.Node, h.state.History, h.state.Secret, h.state.Unknown, h.state.Addresses = node, history, "", false, addresses
	return h.save()
}

// NextEpoch hands out an epoch larger than any before, also before a power cut. With an error it is good all the same, but
// not reserved on disk: should it be used again after a power cut, the hub will refuse it and say the last one.
func (h *Hub) NextEpoch() (epoch uint64, err error) {
	if before := h.state.Reserved; h.epoch >= before {
		h.state.Reserved = h.epoch + epochBlock
		if err = h.save(); err != nil {
			h.state.Reserved = before
		}
	}
	h.epoch++
	return h.epoch, err
}

// PassEpoch has the next epoch be larger than one that the hub has seen: the device was restored from an image.
func (h *Hub) PassEpoch(seen uint64) {
	if seen > h.epoch {
		h.epoch = seen
	}
}

// Worked says that the hub was reached at an address.
func (h *Hub) Worked(addr string) {
	if i := slices.Index(h.state.Addresses, addr); i >= 0 {
		h.turn = i
	}
}
