package satoken

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// jwtHeader has one algorithm, ES256 (RFC 7518 section 3.4), and one of the hub's keys. A token that names another algorithm is not
// ours.
type jwtHeader struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
}

// maxToken bounds a token in bytes. The largest that Issue makes has 16 audiences of 512 bytes.
const maxToken = 64 << 10

// Claims are those of a token, in Kubernetes' shape.
type Claims struct {
	Audience   audiences   `json:"aud,omitempty"`
	Expires    int64       `json:"exp,omitempty"`
	IssuedAt   int64       `json:"iat,omitempty"`
	Issuer     string      `json:"iss"`
	ID         string      `json:"jti,omitempty"`
	NotBefore  int64       `json:"nbf,omitempty"`
	Subject    string      `json:"sub"`
	Kubernetes *kubeClaims `json:"kubernetes.io,omitempty"` // nil in a legacy token

	// Those of a legacy token, which is the content of a Secret and does not expire; empty in others.
	LegacyNamespace string `json:"kubernetes.io/serviceaccount/namespace,omitempty"`
	LegacySecret    string `json:"kubernetes.io/serviceaccount/secret.name,omitempty"`
	LegacyName      string `json:"kubernetes.io/serviceaccount/service-account.name,omitempty"`
	LegacyUID       string `json:"kubernetes.io/serviceaccount/service-account.uid,omitempty"`
}

type kubeClaims struct {
	Namespace      string     `json:"namespace"`
	ServiceAccount objectRef  `json:"serviceaccount"`
	Pod            *objectRef `json:"pod,omitempty"`
	Secret         *objectRef `json:"secret,omitempty"`
	Node           *objectRef `json:"node,omitempty"`
}

type objectRef struct {
	Name string `json:"name"`
	UID  string `json:"uid,omitempty"`
}

// audiences is a list that other issuers may write as a bare string.
type audiences []string

func (a *audiences) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

var errNotOurs = errors.New("the token was not signed by this hub")

func keyID(pub *ecdsa.PublicKey) string {
	sum := sha256.Sum256(point(pub))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func sign(key *ecdsa.PrivateKey, c Claims) (string, error) {
	h, err := json.Marshal(jwtHeader{Alg: "ES256", Kid: keyID(&key.PublicKey)})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding.EncodeToString
	signed := enc(h) + "." + enc(body)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return "", err
	}
	var sig [64]byte
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return signed + "." + enc(sig[:]), nil
}

var strict = base64.RawURLEncoding.Strict()

func decodeHeader(head string) (h jwtHeader, err error) {
	raw, err := strict.DecodeString(head)
	if err != nil || json.Unmarshal(raw, &h) != nil {
		return jwtHeader{}, errors.New("the token's header cannot be read")
	}
	return h, nil
}

// Verify checks the signature and nothing else.
func (k *Keys) Verify(token string) (*Claims, error) {
	if len(token) > maxToken {
		return nil, fmt.Errorf("the token has %d bytes, which is more than %d", len(token), maxToken)
	}
	head, rest, ok1 := strings.Cut(token, ".")
	body, sig64, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 || strings.Contains(sig64, ".") {
		return nil, errors.New("the token is not a JWT")
	}
	h, err := decodeHeader(head)
	if err != nil {
		return nil, err
	}
	if h.Alg != "ES256" {
		return nil, fmt.Errorf("%w: its algorithm is %.20q, not ES256", errNotOurs, h.Alg)
	}
	key, ok := k.set.Load().all[h.Kid]
	if !ok {
		return nil, fmt.Errorf("%w: its key %.60q is not one of the hub's", errNotOurs, h.Kid)
	}
	sig, err := strict.DecodeString(sig64)
	if err != nil || len(sig) != 64 {
		return nil, errNotOurs
	}
	sum := sha256.Sum256([]byte(token[:len(head)+1+len(body)]))
	if !ecdsa.Verify(key.key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return nil, errNotOurs
	}
	raw, err := strict.DecodeString(body)
	if err != nil {
		return nil, errors.New("the token's claims cannot be read")
	}
	c := new(Claims)
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(c); err != nil {
		return nil, fmt.Errorf("the token's claims cannot be read: %w", err)
	}
	return c, nil
}

// IssuerOf returns the iss claim of a token; "" when it is no JWT. Nothing is verified: it says who should judge the token.
func IssuerOf(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	body, _, ok := strings.Cut(rest, ".")
	if !ok || len(token) > maxToken {
		return ""
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil || json.Unmarshal(raw, &c) != nil {
		return ""
	}
	return c.Issuer
}
