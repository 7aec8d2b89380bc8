package auth

import (
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

// One algorithm, one key: ES256 (RFC 7518 section 3.4) with the hub's ServiceAccount key. A token that names another
// algorithm is not ours.
type jwtHeader struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
}

// claims are those of a bound ServiceAccount token, in Kubernetes' shape.
type claims struct {
	Audience   audiences  `json:"aud"`
	Expires    int64      `json:"exp"`
	IssuedAt   int64      `json:"iat"`
	Issuer     string     `json:"iss"`
	ID         string     `json:"jti"`
	NotBefore  int64      `json:"nbf"`
	Subject    string     `json:"sub"`
	Kubernetes kubeClaims `json:"kubernetes.io"`
}

type kubeClaims struct {
	Namespace      string     `json:"namespace"`
	ServiceAccount objectRef  `json:"serviceaccount"`
	Pod            *objectRef `json:"pod,omitempty"`
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
	raw, err := pub.Bytes()
	if err != nil {
		panic("auth: a P-256 key has an encoding: " + err.Error())
	}
	sum := sha256.Sum256(raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func signJWT(key *ecdsa.PrivateKey, c claims) (string, error) {
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

// verifyJWT checks the signature and nothing else.
func verifyJWT(pub *ecdsa.PublicKey, token string) (*claims, error) {
	head, rest, ok1 := strings.Cut(token, ".")
	body, sig64, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 || strings.Contains(sig64, ".") {
		return nil, errors.New("the token is not a JWT")
	}
	dec := base64.RawURLEncoding.Strict().DecodeString
	var h jwtHeader
	if raw, err := dec(head); err != nil || json.Unmarshal(raw, &h) != nil {
		return nil, errors.New("the token's header cannot be read")
	}
	if h.Alg != "ES256" {
		return nil, errNotOurs
	}
	sig, err := dec(sig64)
	if err != nil || len(sig) != 64 {
		return nil, errNotOurs
	}
	sum := sha256.Sum256([]byte(token[:len(head)+1+len(body)]))
	if !ecdsa.Verify(pub, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return nil, errNotOurs
	}
	raw, err := dec(body)
	if err != nil {
		return nil, errors.New("the token's claims cannot be read")
	}
	c := new(claims)
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, fmt.Errorf("the token's claims cannot be read: %w", err)
	}
	return c, nil
}

// decodeBearer decodes a token offered as a WebSocket subprotocol.
func decodeBearer(s string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	return string(b), err
}
