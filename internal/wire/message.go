package wire

import "fmt"

// Message is one thing said within a session: *Welcome, *Refuse, *NeedMap, *Have, *Batch, *Applied, *Open, *Ping, *Pong,
// *Bye or *Complete. (Hello is not among them: it travels inside the handshake.)
type Message interface{ tag() byte }

// Message numbers on the wire. Never reuse one.
//
// To add a message: a number here, a struct with its tag, a case in encodeBody and decodeBody, a line in the golden
// frames, and a line in the package's version history.
const (
	tagWelcome  byte = 1
	tagRefuse   byte = 2
	tagNeedMap  byte = 3
	tagHave     byte = 4
	tagBatch    byte = 5
	tagApplied  byte = 6
	tagOpen     byte = 7
	tagPing     byte = 8
	tagPong     byte = 9
	tagBye      byte = 10
	tagComplete byte = 11 // since version 2
	tagRounds   byte = 12 // a Batch with rounds, since version 3
)

// Hello is what an agent says of itself at the start of a session.
type Hello struct {
	Version  uint32
	Epoch    uint64   // larger than that of any earlier connection of this device
	Instance [8]byte  // random, made when the agent process started: two at a time means a cloned device
	TLSKey   [32]byte // Ed25519 public key of the device's certificate
	Node     string   // the name it wants; counts only when it joins
	Labels   map[string]string
	Taints   []byte // JSON of []v1.Taint; counts only when it joins
	// TokenID and Secret are of a join token; empty when the device believes to be known.
	TokenID, Secret string
	Down            Hash   // of the desired set it holds
	Revision        uint64 // largest hub revision it has applied
	Keepalive       uint32 // seconds
	Build           string
	// Live is the SHA-256 of the secret in this connection's last words (LiveFrame), so that others who may publish on the
	// device's topics cannot say them. Zero before version 2.
	Live [32]byte
}

// Welcome accepts a session.
type Welcome struct {
	Version   uint32
	Node      string // the node's name
	Up        Hash   // of the reports that the hub remembers
	Revision  uint64
	Addresses []string // where this hub can be reached; the agent remembers them
	Settings  Settings
	// History names the hub's store. Revisions can be compared only within one history: it changes when the store is made
	// again, restored or rolled back. Empty before version 2.
	History string
}

// Settings are the cluster's networks, which a node needs to know offline too.
type Settings struct {
	PodCIDR       string `json:"podCIDR,omitempty"`
	ServiceCIDR   string `json:"serviceCIDR,omitempty"`
	DNSAddress    string `json:"dnsAddress,omitempty"`
	ClusterDomain string `json:"clusterDomain,omitempty"`
}

// Code is why a session was refused or ended by the hub.
type Code string

const (
	CodeUnknownDevice Code = "unknown-device" // no Node has this key, and no join token came: deleted, or never joined
	CodeRemoved       Code = "removed"        // the Node was deleted while the session was open
	CodeToken         Code = "token"          // the join token is expired, used up, or unknown
	CodeNameTaken     Code = "name-taken"     // another device with this name is alive
	CodeCloned        Code = "cloned"         // another agent with this very key is alive
	CodeEpoch         Code = "epoch"          // the epoch is not larger than one seen; Epoch says which
	CodeVersion       Code = "version"        // the versions do not go together
	CodeBusy          Code = "busy"           // try again later
	CodeReplaced      Code = "replaced"       // a newer connection of this device took over
	CodeShutdown      Code = "shutdown"       // the hub goes down
)

// Refuse ends a session before its welcome.
type Refuse struct {
	Code     Code
	Message  string // for people: what, why, and the way out
	Epoch    uint64
	Revision uint64 // the hub's; in version 1 only this shows that a hub was restored
	// History is the hub's, as in Welcome. Only the history that welcomed a device can say that its Node was deleted.
	History string
}

func (r *Refuse) Error() string { return fmt.Sprintf("hub refused: %s", r.Message) }

// NeedMap asks the holder of a copy for its id→version map.
type NeedMap struct{}

// Have answers NeedMap.
type Have struct{ Entries []Entry }

// Batch is a difference to a set. It applies as a whole or not at all.
type Batch struct {
	Seq      uint64 // from 1 in each session and direction
	Revision uint64 // the hub's revision it is as of; 0 upwards
	Hash     Hash   // of the copy after this batch
	Puts     []Put
	Deletes  []ID
	// Rounds are changes that many peers get alike, each packed by itself; they come before Puts and Deletes, see Expand. Only a hub
	// sends them, and none to an agent before version 3.
	Rounds [][]byte
}

// Put is an object of a batch. Once: it is not kept in the set, only handed over (an event, the end of a pod).
type Put struct {
	Object
	Once bool
}

// Applied answers a batch once it is durable, with the hash of the copy as it is now.
type Applied struct {
	Seq  uint64
	Hash Hash
}

// Open asks a node to serve a stream. Key seals its frames; the topics are those of Stream.
type Open struct {
	Stream  string
	Key     [32]byte
	Request []byte // JSON of StreamRequest
}

// Ping asks for a Pong, to learn whether the other side is alive.
type Ping struct{}

// Pong answers Ping.
type Pong struct{}

// Complete says that the peer's copy of the desired set is all that the hub wants of the node, and the hash of it. The hub
// says it once in each session, as soon as it is so. Before that, what a copy does not name may still be on its way.
type Complete struct{ Hash Hash }

// Bye ends a session. Code is empty when the agent stops.
type Bye struct {
	Code    Code
	Message string
}

func (*Welcome) tag() byte { return tagWelcome }
func (*Refuse) tag() byte  { return tagRefuse }
func (*NeedMap) tag() byte { return tagNeedMap }
func (*Have) tag() byte    { return tagHave }
func (m *Batch) tag() byte {
	if len(m.Rounds) > 0 {
		return tagRounds
	}
	return tagBatch
}
func (*Applied) tag() byte  { return tagApplied }
func (*Open) tag() byte     { return tagOpen }
func (*Ping) tag() byte     { return tagPing }
func (*Pong) tag() byte     { return tagPong }
func (*Bye) tag() byte      { return tagBye }
func (*Complete) tag() byte { return tagComplete }
