package usertoken

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"petrel.dev/petrel/hub/auth/keyfile"
	"petrel.dev/petrel/internal/clock"
)

// file in the PKI directory has a line for each token:
//
//	ID SHA256 CREATED EXPIRES USER GROUP,GROUP      EXPIRES is - for one that does not end; so are the groups of a user without any
//
// User and groups are escaped as parts of a URL. The token itself is not there: it has 160 random bits, so its plain hash says nothing
// about it. It is with the keys, not among the API's objects: no client can give itself a token.
const file = "users"

const head = "# Tokens of users, hashed. `petrel token create --user` adds to it, `petrel token revoke` takes away.\n"

// prefix begins every token, so that it is known for one, also by programs that search files for secrets.
const prefix = "petrel-user-"

const (
	idLength  = 8   // letters
	maxTokens = 500 // of one hub: the file is read as a whole
	maxName   = 253 // bytes of a user's or group's name
	maxGroups = 32
)

// Token is one token, without what would open the API.
type Token struct {
	ID      string
	User    string
	Groups  []string
	Created time.Time
	Expires time.Time // zero: it does not end

	hash [sha256.Size]byte
}

func (t Token) line() string {
	expires, groups := "-", "-"
	if !t.Expires.IsZero() {
		expires = t.Expires.UTC().Format(time.RFC3339)
	}
	if len(t.Groups) > 0 {
		escaped := make([]string, len(t.Groups))
		for i, g := range t.Groups {
			escaped[i] = url.PathEscape(g)
		}
		groups = strings.Join(escaped, ",")
	}
	return fmt.Sprintf("%s %x %s %s %s %s\n", t.ID, t.hash, t.Created.UTC().Format(time.RFC3339), expires, url.PathEscape(t.User), groups)
}

var idForm = regexp.MustCompile(`^[a-z2-7]{8}$`)

func parse(text string) (t Token, err error) {
	f := strings.Fields(text)
	if len(f) != 6 || !idForm.MatchString(f[0]) {
		return Token{}, fmt.Errorf("%.40q is not `ID SHA256 CREATED EXPIRES USER GROUPS`", text)
	}
	t.ID = f[0]
	if n, err := hex.Decode(t.hash[:], []byte(f[1][:min(len(f[1]), 2*sha256.Size)])); err != nil || n != sha256.Size || len(f[1]) != 2*sha256.Size {
		return Token{}, errors.New("the second field is no SHA-256")
	}
	if t.Created, err = time.Parse(time.RFC3339, f[2]); err != nil {
		return Token{}, fmt.Errorf("%.40q is no time: %w", f[2], err)
	}
	if f[3] != "-" {
		if t.Expires, err = time.Parse(time.RFC3339, f[3]); err != nil {
			return Token{}, fmt.Errorf("%.40q is no time: %w", f[3], err)
		}
	}
	if t.User, err = url.PathUnescape(f[4]); err != nil {
		return Token{}, err
	}
	if f[5] == "-" {
		return t, nil
	}
	for g := range strings.SplitSeq(f[5], ",") {
		if g, err = url.PathUnescape(g); err != nil {
			return Token{}, err
		}
		t.Groups = append(t.Groups, g)
	}
	return t, nil
}

// List returns the tokens of a PKI directory, in the order of their making. A line that cannot be read is an error: the tokens of the
// list before stay in force, instead of some of them without the owner noticing.
func List(dir string) ([]Token, error) {
	path := filepath.Join(dir, file)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read tokens of users: %w", err)
	}
	var list []Token
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		t, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("tokens of users %s, line %d: %w; correct it, or take the line out: its token ends then", path, n, err)
		}
		list = append(list, t)
	}
	return list, lines.Err()
}

func write(dir string, list []Token) error {
	text := head
	for _, t := range list {
		text += t.line()
	}
	return keyfile.Write(filepath.Join(dir, file), []byte(text), 0o600)
}

// Create makes a token for a user in groups, which ends after ttl, 0: never. It returns the text that opens the API, which is nowhere
// else. Tokens that have ended are dropped from the file.
func Create(dir, user string, groups []string, ttl time.Duration) (text string, t Token, err error) {
	if err := checkNames(user, groups); err != nil {
		return "", Token{}, err
	}
	if ttl < 0 {
		return "", Token{}, fmt.Errorf("a token cannot be valid for %s", ttl)
	}
	now := clock.Now().Truncate(time.Second)
	list, err := List(dir)
	if err != nil {
		return "", Token{}, err
	}
	list = slices.DeleteFunc(list, func(t Token) bool { return t.ended(now) })
	if len(list) >= maxTokens {
		return "", Token{}, fmt.Errorf("there are %d tokens of users already; revoke some (petrel token list --users), or use OIDC for so many people", len(list))
	}
	secret := strings.ToLower(rand.Text() + rand.Text())
	t = Token{ID: secret[:idLength], User: user, Groups: groups, Created: now}
	if ttl > 0 {
		t.Expires = now.Add(ttl)
	}
	text = prefix + t.ID + "-" + secret[idLength:]
	t.hash = sha256.Sum256([]byte(text))
	return text, t, write(dir, append(list, t))
}

// checkNames refuses names that belong to parts of the cluster: a token for one of them would be mistaken for it.
func checkNames(user string, groups []string) error {
	switch {
	case user == "" || len(user) > maxName:
		return fmt.Errorf("a user's name has 1 to %d bytes", maxName)
	case strings.HasPrefix(user, "system:"):
		return fmt.Errorf("%q is a name of a part of the cluster; choose one without \"system:\" before it", user)
	case len(groups) > maxGroups:
		return fmt.Errorf("%d groups: at most %d", len(groups), maxGroups)
	}
	for _, g := range groups {
		switch {
		case g == "" || len(g) > maxName:
			return fmt.Errorf("a group's name has 1 to %d bytes", maxName)
		case strings.HasPrefix(g, "system:") && g != "system:masters":
			return fmt.Errorf("the group %q is given by the hub itself; of those with system: only system:masters (everything is allowed) can be chosen", g)
		}
	}
	return nil
}

// Revoke takes tokens away, by id or all of a user, and returns which.
func Revoke(dir, idOrUser string) ([]Token, error) {
	list, err := List(dir)
	if err != nil {
		return nil, err
	}
	var gone []Token
	list = slices.DeleteFunc(list, func(t Token) bool {
		if t.ID != idOrUser && t.User != idOrUser {
			return false
		}
		gone = append(gone, t)
		return true
	})
	if len(gone) == 0 {
		return nil, fmt.Errorf("there is no token, and no user with a token, %q; petrel token list --users shows those there are", idOrUser)
	}
	return gone, write(dir, list)
}

func (t Token) ended(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }
