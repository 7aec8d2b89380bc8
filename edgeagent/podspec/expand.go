package podspec

import (
	"fmt"
	"slices"
	"strings"
)

// expand replaces $(NAME) by its value when it has one; $$ stands for $.
func expand(s string, vars map[string]string) string {
	return expandBy(s, func(name string) string {
		if v, ok := vars[name]; ok {
			return v
		}
		return "$(" + name + ")"
	})
}

// expandKnown is expand for a path, where a name without a value is an error instead of a directory of that name.
func expandKnown(s string, vars map[string]string) (string, error) {
	var missing []string
	out := expandBy(s, func(name string) string {
		if _, ok := vars[name]; !ok {
			missing = append(missing, name)
		}
		return vars[name]
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("missing value for %s", strings.Join(missing, ", "))
	}
	return out, nil
}

// expandBy replaces each $(NAME) by what value returns for it. What is no complete reference stays as it is.
func expandBy(s string, value func(name string) string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			b.WriteString(value(s[i+2 : i+end]))
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// expandAll expands each of a list. nil stays nil: it stands for the image's own command or arguments.
func expandAll(list []string, vars map[string]string) []string {
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = expand(s, vars)
	}
	return out
}

// sortedEnv writes variables as KEY=value, in an order that is the same each time.
func sortedEnv(vars map[string]string) []string {
	out := make([]string, 0, len(vars))
	for k, v := range vars {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}
