// Package wire is the protocol between a hub and its nodes: what is said, how it is packed, sealed, numbered and
// repeated. It holds no goroutine, clock, socket or file; both sides drive the same machines with frames and times.
//
//	Object sets      Sender ── Batch, NeedMap ──►  Receiver's Have, Applied           sync.go
//	Messages         Welcome, Refuse, Batch, ... as bytes, compressed when worth it    message.go, codec.go
//	Pipe             pieces, numbers, acknowledgement, resend, one window in flight    pipe.go
//	Seal             Noise XK, then ChaCha20-Poly1305 with the number as nonce         handshake.go
//	Frame            type, session tag, number, sealed bytes                           frame.go
//	Topics           petrel/<cluster>/<node>/{up,down,live}, .../s/<stream>/{up,down}  topic.go
//
// # A connection, step by step
//
// The agent connects to the broker, subscribes to its down topics and knocks: the first message of a Noise XK handshake
// under a random session tag. The hub answers with a challenge. The agent's hello is the third message: it proves the
// device's static key and carries, sealed and fresh, who the device is, the epoch of this connection, a join secret when
// it has one, and the hashes of the two sets it holds. From here on every frame is sealed with the keys of this one
// handshake, so nothing recorded earlier, on another connection or by another device can be replayed into it.
//
// The hub answers welcome or refuse. After welcome, two sets are kept equal, each by the same pair of machines: the
// desired set from hub to node and the reported set from node to hub. The side that owns a set compares hashes; when they
// differ it asks for the other's id→version map (NeedMap, Have); then it sends differences in numbered batches, one
// unanswered at a time. The other side makes a batch durable before it answers Applied with the number and the hash it
// has come to. A hash that is not the expected one starts again from NeedMap. Changes made meanwhile coalesce: only an
// object's latest version travels.
//
// A broker may drop, repeat, delay and reorder frames; the pipe below repairs that, in both directions alike. What it
// cannot repair in GiveUp time ends the session, and the agent connects again with a larger epoch.
//
// # Limits
//
// A frame is at most MaxFrame bytes; a message at most MaxMessage after unpacking; Window frames are in flight at once.
//
// # Versions
//
//	1  2026-11-21  first version
//	   2026-11-25  reports of kind Image; a hub that does not know a kind confirms it and lets it pass
//	2  2026-11-28  Welcome and Refuse name the hub's history; Complete; Hello has the hash of the secret in the last words.
//	               A hub of version 2 says no Complete to an agent of version 1, and no revision to one that it does not
//	               know: that agent keeps its pods. An agent of version 2 takes no Refuse of a hub of version 1 for the
//	               deletion of its Node, and no set of such a hub for complete. So update the hub first.
//	   2026-11-28  streams of kind connect and node; an agent that does not know the kind ends the stream with BadRequest
//	   2026-11-29  objects of kind Claim and Reclaim, reports of kind Volume; an agent that does not know them mounts no claims and
//	               removes no volumes
//	3  2026-11-29  Batch with rounds, as a message of its own number: differences of what all nodes get. A hub sends none to an
//	               agent of version 1 or 2, which gets whole objects as before. A hub takes no rounds.
package wire

// Version is the protocol version this build speaks. A side that meets a larger one answers with its own; a hub refuses
// an agent older than MinVersion. Fields are only ever appended to messages, and unknown trailing bytes are ignored.
const (
	Version    = 3
	MinVersion = 1
)
