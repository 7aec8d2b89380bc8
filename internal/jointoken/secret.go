package jointoken

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"petrel.dev/petrel/internal/clock"
	"petrel.dev/petrel/internal/nodename"
	"petrel.dev/petrel/internal/wire"
)

// Where things are kept.
const (
	SecretType       corev1.SecretType = "petrel.dev/join-token"
	SecretNamespace  string            = "kube-system"
	secretPrefix     string            = "join-token-"
	ClusterNamespace string            = "kube-public"
	ClusterName      string            = "petrel-cluster"
)

// Errors of Record.Check.
var (
	ErrExpired = errors.New("join token is expired; make a new one on the hub with: petrel token create")
	ErrUsedUp  = errors.New("join token is used up; make a new one on the hub with: petrel token create")
	ErrUnknown = errors.New("the hub has no such join token: it was deleted, or is of another hub; make a new one with: petrel token create")
)

// Options are what a token may do.
type Options struct {
	TTL         time.Duration // 0: no limit
	Uses        int           // how many devices may join; 0: any number
	Description string
	// Names is the form that the names of new Nodes must have, and the one that devices give themselves; empty: any.
	Names nodename.Pattern
	// Replace is the Node whose device the token may replace, and the only name under which it is good; empty: a new Node.
	Replace string
}

// Record is the hub's side of a token.
type Record struct {
	TokenID     string
	Hash        string    // hex of the SHA-256 of the secret
	Expires     time.Time // zero: never
	Uses        int       // left; negative: any number
	Description string
	Names       nodename.Pattern // as in Options, and so is Replace
	Replace     string
}

// Mint makes a token and the Secret to store for it. A nil rnd is the system's.
func Mint(c Cluster, o Options, now time.Time, rnd io.Reader) (Token, *corev1.Secret, error) {
	if rnd == nil {
		rnd = rand.Reader
	}
	if o.TTL < 0 || o.Uses < 0 {
		return Token{}, nil, errors.New("join token: lifetime and uses cannot be negative")
	}
	var b [20]byte
	if problems := validation.IsDNS1123Subdomain(o.Replace); o.Replace != "" && len(problems) > 0 {
		return Token{}, nil, fmt.Errorf("join token: %q is no node name: %s", o.Replace, problems[0])
	}
	if err := o.checkNames(); err != nil {
		return Token{}, nil, fmt.Errorf("join token: %w", err)
	}
	if _, err := io.ReadFull(rnd, b[:]); err != nil {
		return Token{}, nil, fmt.Errorf("join token: %w", err)
	}
	t := Token{Cluster: c, TokenID: hex.EncodeToString(b[:4]), Secret: base64.RawURLEncoding.EncodeToString(b[4:]), Names: o.Names}
	r := Record{TokenID: t.TokenID, Hash: hash(t.Secret), Uses: -1, Description: o.Description, Names: o.Names, Replace: o.Replace}
	if o.TTL > 0 {
		r.Expires = clock.Sane(now).Add(o.TTL).UTC().Truncate(time.Second)
	}
	if o.Uses > 0 {
		r.Uses = o.Uses
	}
	return t, ToSecret(r), nil
}

// checkNames refuses a pattern that cannot name more than one device, and one beside a name.
func (o Options) checkNames() error {
	switch {
	case o.Names == "":
		return nil
	case o.Replace != "":
		return errors.New("a token that replaces a node has no pattern: the name is that node's")
	case o.Names.IsPlain():
		return fmt.Errorf("%q is one name, which one device can have: a pattern has a field in it, as in %s-{serial}", string(o.Names), string(o.Names))
	}
	return o.Names.Check()
}

func hash(secret string) string {
	s := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(s[:])
}

// SecretName is the name of a token's Secret.
func SecretName(tokenID string) string { return secretPrefix + tokenID }

// ToSecret gives the Secret that stores a record.
func ToSecret(r Record) *corev1.Secret {
	data := map[string][]byte{"token-id": []byte(r.TokenID), "hash": []byte(r.Hash)}
	if !r.Expires.IsZero() {
		data["expires"] = []byte(r.Expires.UTC().Format(time.RFC3339))
	}
	if r.Uses >= 0 {
		data["uses"] = []byte(strconv.Itoa(r.Uses))
	}
	if r.Description != "" {
		data["description"] = []byte(r.Description)
	}
	if r.Names != "" {
		data["names"] = []byte(r.Names)
	}
	if r.Replace != "" {
		data["replace"] = []byte(r.Replace)
	}
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: SecretNamespace, Name: SecretName(r.TokenID)},
		Type:       SecretType,
		Data:       data,
	}
}

// FromSecret reads a record.
func FromSecret(s *corev1.Secret) (Record, error) {
	bad := func(what string) (Record, error) {
		return Record{}, fmt.Errorf("join token secret %s/%s: %s; delete it and make a new one", s.Namespace, s.Name, what)
	}
	if s.Type != SecretType {
		return bad(fmt.Sprintf("type is %q, not %q", s.Type, SecretType))
	}
	r := Record{TokenID: string(s.Data["token-id"]), Hash: string(s.Data["hash"]), Uses: -1, Description: string(s.Data["description"]), Names: nodename.Pattern(s.Data["names"]), Replace: string(s.Data["replace"])}
	if r.TokenID == "" || SecretName(r.TokenID) != s.Name || len(r.Hash) != 2*sha256.Size {
		return bad("token-id or hash is damaged")
	}
	if v, ok := s.Data["expires"]; ok {
		t, err := time.Parse(time.RFC3339, string(v))
		if err != nil {
			return bad("expires is not a time")
		}
		r.Expires = t
	}
	if v, ok := s.Data["uses"]; ok {
		n, err := strconv.Atoi(string(v))
		if err != nil || n < 0 {
			return bad("uses is not a number")
		}
		r.Uses = n
	}
	if r.Names != "" {
		if err := r.Names.Check(); err != nil {
			return bad(err.Error())
		}
	}
	return r, nil
}

// Check reports whether a device may join with this secret now. A wrong secret gives the same error as an unknown token.
func (r Record) Check(secret string, now time.Time) error {
	switch {
	case subtle.ConstantTimeCompare([]byte(hash(secret)), []byte(r.Hash)) != 1:
		return ErrUnknown
	case !r.Expires.IsZero() && !clock.Sane(now).Before(r.Expires):
		return ErrExpired
	case r.Uses == 0:
		return ErrUsedUp
	}
	return nil
}

// Spend gives the record after one use.
func (r Record) Spend() Record {
	if r.Uses > 0 {
		r.Uses--
	}
	return r
}

// CheckName returns why the token is not good for a node of this name, which must be a valid one, and what would be.
func (r Record) CheckName(name string) error {
	switch {
	case r.Replace != "" && r.Replace != name:
		return fmt.Errorf("this join token is for the device that takes the place of node %s, not for %s; start the agent with --node-name %s, or make another token with: petrel token create",
			r.Replace, name, r.Replace)
	case r.Names != "" && !r.Names.Matches(name):
		return fmt.Errorf("this join token is for nodes that are named by the pattern %s, which %q does not have; start the agent without --node-name, or make another token with: petrel token create",
			r.Names, name)
	}
	return nil
}

// OtherName returns how a device gets a name that no other one has. Machines with one name by a pattern have the same in its fields:
// copies of a card have one host name and one machine id.
func (r Record) OtherName() string {
	if r.Names == "" {
		return "give this one another name with --node-name"
	}
	return fmt.Sprintf("the pattern %s of its token gives both machines this name: make a token whose pattern distinguishes them, by {serial} or {mac}, or give this one a name of that form with --node-name", r.Names)
}

// ToConfigMap gives the ConfigMap that publishes a cluster. A broker's password is not published: a client that mints tokens
// for a cluster with an external broker reads it from Secret kube-system/petrel-broker.
func ToConfigMap(c Cluster) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: ClusterNamespace, Name: ClusterName},
		Data: map[string]string{
			"cluster-id": c.ID,
			"addresses":  strings.Join(c.Addresses, ","),
			"tls-pin":    base64.RawURLEncoding.EncodeToString(c.Pin[:]),
			"hub-key":    base64.RawURLEncoding.EncodeToString(c.Key[:]),
		},
	}
}

// FromConfigMap reads what ToConfigMap wrote.
func FromConfigMap(m *corev1.ConfigMap) (Cluster, error) {
	c := Cluster{ID: m.Data["cluster-id"]}
	for _, a := range strings.Split(m.Data["addresses"], ",") {
		if a = strings.TrimSpace(a); a != "" {
			c.Addresses = append(c.Addresses, a)
		}
	}
	pin, err1 := base64.RawURLEncoding.DecodeString(m.Data["tls-pin"])
	key, err2 := base64.RawURLEncoding.DecodeString(m.Data["hub-key"])
	if err1 != nil || err2 != nil || len(pin) != len(wire.Pin{}) || len(key) != len(wire.PublicKey{}) || c.ID == "" {
		return Cluster{}, fmt.Errorf("configmap %s/%s does not describe a Petrel cluster; a hub writes it at its start", m.Namespace, m.Name)
	}
	c.Pin, c.Key = wire.Pin(pin), wire.PublicKey(key)
	return c, nil
}

// BrokerSecretName is the Secret in kube-system that holds the URL agents use for an external broker, under key "url".
const BrokerSecretName = "petrel-broker"

// BrokerSecret gives that Secret.
func BrokerSecret(url string) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: SecretNamespace, Name: BrokerSecretName},
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{"url": []byte(url)},
	}
}
