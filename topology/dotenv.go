package topology

import (
	"errors"
	"fmt"
	"strings"
)

// ParseEnv reads a .env file as compose does: NAME=value or NAME: value lines,
// perhaps with export before them, # comments, single quotes that keep
// everything, double quotes with \n, \t, \r, \", \\ and \$, and variables from
// earlier lines. A quoted value may span lines. The path is used for messages;
// the error is Problems. No error has more of the file than a variable's name:
// what is wrong with a line may be that it is a part of a secret.
func ParseEnv(path string, data []byte) (map[string]string, error) {
	env, err := parseEnv(data, nil, false)
	if wrong := new(envError); errors.As(err, &wrong) {
		return nil, Problems{{File: path, Line: wrong.line, Column: 1, Message: wrong.err.Error(), Hint: envLineHint}}
	}
	return env, err
}

const envLineHint = "a line is NAME=value"

// envError is what is wrong with a line of a .env file.
type envError struct {
	line int // from 1
	err  error
}

func (e *envError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *envError) Unwrap() error { return e.err }

// parseEnv does the same; variables may come from lookup too, and with bare a
// line that is only a name takes the value from there.
func parseEnv(data []byte, lookup func(string) (string, bool), bare bool) (map[string]string, error) {
	find := func(env map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			v, ok := env[name]
			if !ok && lookup != nil {
				v, ok = lookup(name)
			}
			return v, ok
		}
	}
	env := map[string]string{}
	rest := strings.ReplaceAll(strings.TrimPrefix(string(data), "\ufeff"), "\r\n", "\n")
	for line := 1; rest != ""; {
		text, after, _ := strings.Cut(rest, "\n")
		trimmed := strings.TrimSpace(text)
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			rest = after
			line++
			continue
		}
		wrong := func(format string, args ...any) error { return &envError{line, fmt.Errorf(format, args...)} }
		end := strings.IndexAny(text, "=:")
		name := strings.TrimSpace(text[:max(end, 0)])
		if exported, ok := strings.CutPrefix(name, "export "); ok {
			name = strings.TrimSpace(exported)
		}
		switch {
		case bare && trimmed == leadingName(trimmed):
			if v, ok := find(nil)(trimmed); ok {
				env[trimmed] = v
			}
			rest = after
			line++
			continue
		case end < 0:
			return nil, wrong("there is no = and no value")
		case leadingName(name) != name || name == "":
			return nil, wrong("what stands before %c is not a variable's name", text[end])
		}
		value := rest[end+1:]
		v, end, err := envValue(value, find(env))
		if err != nil {
			return nil, wrong("%s: %w", name, err)
		}
		env[name] = v
		line += strings.Count(value[:end], "\n") + 1
		_, rest, _ = strings.Cut(value[end:], "\n")
	}
	return env, nil
}

// envValue reads the value that s starts with and tells where it ends.
func envValue(s string, lookup func(string) (string, bool)) (value string, end int, err error) {
	start := len(s) - len(strings.TrimLeft(s, " \t"))
	s = s[start:]
	line, _, _ := strings.Cut(s, "\n")
	if s == "" || s[0] != '\'' && s[0] != '"' {
		text := line
		for i := range text {
			if text[i] == '#' && (i == 0 || text[i-1] == ' ' || text[i-1] == '\t') {
				text = text[:i]
				break
			}
		}
		value, err := interpolateEnv(strings.TrimSpace(text), lookup)
		return value, start + len(line), err
	}
	quote, i := s[0], 1
	for ; i < len(s) && s[i] != quote; i++ {
		if s[i] == '\\' && i+1 < len(s) && (quote == '"' || s[i+1] == '\'') {
			i++
		}
	}
	if i >= len(s) {
		return "", 0, fmt.Errorf("a %c that is not closed", quote)
	}
	inner := s[1:i]
	tail, _, _ := strings.Cut(s[i+1:], "\n")
	if after := strings.TrimSpace(tail); after != "" && !strings.HasPrefix(after, "#") {
		return "", 0, errors.New("something follows the closing quote")
	}
	if quote == '\'' {
		return strings.ReplaceAll(inner, `\'`, `'`), start + i + 1, nil
	}
	inner = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r", `\t`, "\t", `\"`, `"`, `\$`, "$$").Replace(inner)
	value, err = interpolateEnv(inner, lookup)
	return value, start + i + 1, err
}

// interpolateEnv takes unset variables for empty: a .env file may name what only
// some machines have.
func interpolateEnv(s string, lookup func(string) (string, bool)) (string, error) {
	value, err := interpolate(s, func(name string) (string, bool) {
		value, _ := lookup(name)
		return value, true
	})
	if err != nil {
		err = errors.New("a $ in its value begins no variable, or a required one that is not set; $$ is a dollar sign")
	}
	return value, err
}
