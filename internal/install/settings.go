package install

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"
)

// settingsDir is where hub and agent look for their settings.
const settingsDir = "/etc/petrel"

// joinSetting is the key of a join token in the agent's settings.
const joinSetting = "join"

// Settings are those that the target has for the service, without any when there is no file.
func (t Target) Settings(r Role) (map[string]any, error) {
	full, err := t.path(settingsFile(r))
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(full)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(b, &values); err != nil {
		return nil, fmt.Errorf("%s: %w", full, err)
	}
	return values, nil
}

// DataDir returns where the service keeps its state, by the settings that the target has for it.
func (t Target) DataDir(r Role) (string, error) {
	settings, err := t.Settings(r)
	if err != nil {
		return "", err
	}
	if dir, ok := settings["data-dir"].(string); ok && dir != "" {
		return filepath.Clean(dir), nil
	}
	return defaultData, nil
}

func settingsFile(r Role) string { return settingsDir + "/" + string(r) + ".yaml" }

// putSettings adds the service's settings to those of the target, and returns whether that changed them. Comments in the file are
// lost only then.
func (t Target) putSettings(s Service) (bool, error) {
	if len(s.Settings) == 0 && t.has(settingsFile(s.Role)) {
		return false, nil
	}
	unlock, err := t.lockSettings()
	if err != nil {
		return false, err
	}
	defer unlock()
	old, err := t.Settings(s.Role)
	if err != nil {
		return false, err
	}
	next := maps.Clone(old)
	maps.Copy(next, s.Settings)
	maps.DeleteFunc(next, func(_ string, v any) bool { return v == nil })
	before, err := yaml.Marshal(old)
	if err != nil {
		return false, err
	}
	after, err := yaml.Marshal(next)
	if err != nil {
		return false, err
	}
	if t.has(settingsFile(s.Role)) && string(before) == string(after) {
		return false, nil
	}
	head := "# Settings of petrel " + string(s.Role) + ": each is a flag of it without the dashes. See petrel " + string(s.Role) + " --help.\n"
	if len(next) == 0 {
		after = nil
	}
	changed, err := t.put(settingsFile(s.Role), append([]byte(head), after...), 0o600)
	if changed && err == nil {
		t.Changed("written", settingsFile(s.Role))
	}
	return changed, err
}

// lockSettings has others who change settings wait: `petrel install` and an agent that takes its token out.
func (t Target) lockSettings() (unlock func(), err error) {
	file, err := t.path(settingsFile("agent"))
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		d.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}

// ForgetToken takes the token out of the agent's settings, and returns the file if it was there: a machine that has joined has no use for
// it, and who gets its card would have it. Another token stays: it is for the agent's next start. The rest of the file stays as it is.
func (t Target) ForgetToken(token string) (file string, err error) {
	file, err = t.forgetToken(token)
	if err != nil {
		return "", fmt.Errorf("take the token out of the settings: %w", err)
	}
	return file, nil
}

func (t Target) forgetToken(token string) (string, error) {
	if !t.has(settingsFile("agent")) {
		return "", nil
	}
	unlock, err := t.lockSettings()
	if err != nil {
		return "", err
	}
	defer unlock()
	settings, err := t.Settings("agent")
	if err != nil {
		return "", err
	}
	if has, ok := settings[joinSetting].(string); !ok || plain(has) != plain(token) {
		return "", nil
	}
	delete(settings, joinSetting)
	full, err := t.path(settingsFile("agent"))
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(full)
	if err != nil {
		return "", err
	}
	rest, err := withoutKey(text, joinSetting, settings)
	if err != nil {
		return "", err
	}
	_, err = t.put(settingsFile("agent"), rest, 0o600)
	return full, err
}

// plain is a token without the white space that does not matter in it.
func plain(token string) string { return strings.Join(strings.Fields(token), "") }

// withoutKey returns the text of settings without one key: without its lines if what is left then reads as want, as comments should stay;
// otherwise want without comments.
func withoutKey(text []byte, key string, want map[string]any) ([]byte, error) {
	whole, err := yaml.Marshal(want)
	if err != nil {
		return nil, err
	}
	var rest []string
	inside := false // of the key's value, which may go on for some indented lines
	for line := range strings.Lines(string(text)) {
		name, _, isKey := strings.Cut(line, ":")
		switch {
		case isKey && strings.Trim(strings.TrimSpace(name), `"'`) == key && name[0] != ' ':
			inside = true
			continue
		case inside && (line[0] == ' ' || line[0] == '\t'):
			continue
		}
		inside = false
		rest = append(rest, line)
	}
	short, left := []byte(strings.Join(rest, "")), map[string]any{}
	if err := yaml.UnmarshalStrict(short, &left); err == nil {
		if again, err := yaml.Marshal(left); err == nil && string(again) == string(whole) {
			return short, nil
		}
	}
	if len(want) == 0 {
		return nil, nil
	}
	return whole, nil
}
