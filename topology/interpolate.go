package topology

import (
	"fmt"
	"strings"
)

// valueError says what is wrong with a value by itself, mostly with a variable
// in it.
type valueError struct{ message, hint string }

func (e *valueError) Error() string { return e.message }

// interpolate replaces variables as compose does: $NAME, ${NAME}, and with
// : for "or empty" ${NAME:-default}, ${NAME:?message}, ${NAME:+instead}; $$ is
// a dollar sign. What stands behind the operator may hold variables itself.
func interpolate(s string, lookup func(string) (string, bool)) (string, error) {
	if !strings.Contains(s, "$") {
		return s, nil
	}
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	return interpolateDeep(s, lookup, 0)
}

func interpolateDeep(s string, lookup func(string) (string, bool), depth int) (string, error) {
	if depth > maxDepth {
		return "", &valueError{"variables nested too deep", "use a variable of its own for the default"}
	}
	var b strings.Builder
	for {
		at := strings.IndexByte(s, '$')
		if at < 0 {
			b.WriteString(s)
			return b.String(), nil
		}
		b.WriteString(s[:at])
		s = s[at+1:]
		switch {
		case strings.HasPrefix(s, "$"):
			b.WriteByte('$')
			s = s[1:]
		case strings.HasPrefix(s, "{"):
			end := closingBrace(s)
			if end < 0 {
				return "", &valueError{"${ without its }", "write $$ for a dollar sign"}
			}
			value, err := braced(s[1:end], lookup, depth)
			if err != nil {
				return "", err
			}
			b.WriteString(value)
			s = s[end+1:]
		default:
			name := leadingName(s)
			if name == "" {
				return "", &valueError{"a lone $ in a value", "write $$ for a dollar sign"}
			}
			value, ok := lookup(name)
			if !ok {
				return "", unset(name)
			}
			b.WriteString(value)
			s = s[len(name):]
		}
	}
}

// braced evaluates what stands between ${ and }.
func braced(s string, lookup func(string) (string, bool), depth int) (string, error) {
	name := leadingName(s)
	rest := s[len(name):]
	orEmpty := strings.HasPrefix(rest, ":")
	op := strings.TrimPrefix(rest, ":")
	bad := &valueError{fmt.Sprintf("%s is not a variable", quoted("${"+s+"}")),
		"write ${NAME}, ${NAME:-default}, ${NAME:?message} or ${NAME:+instead}; $$ for a dollar sign"}
	if name == "" || (rest != "" && op == "") {
		return "", bad
	}
	value, set := lookup(name)
	if rest == "" {
		if !set {
			return "", unset(name)
		}
		return value, nil
	}
	have := set && (!orEmpty || value != "")
	word := func() (string, error) { return interpolateDeep(op[1:], lookup, depth+1) }
	switch op[0] {
	case '-':
		if have {
			return value, nil
		}
		return word()
	case '+':
		if have {
			return word()
		}
		return "", nil
	case '?':
		if have {
			return value, nil
		}
		message, err := word()
		if err != nil {
			return "", err
		}
		if message == "" {
			message = "it is required"
		}
		return "", &valueError{fmt.Sprintf("variable %s is not set: %s", name, message),
			"export it or put it into .env"}
	}
	return "", bad
}

func unset(name string) error {
	return &valueError{fmt.Sprintf("variable %s is not set", name),
		fmt.Sprintf("export it, put it into .env, or write ${%s:-} where empty is fine", name)}
}

// closingBrace finds the } that belongs to the { that s starts with, or -1.
func closingBrace(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '{' && (i == 0 || s[i-1] == '$'):
			depth++
		case s[i] == '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// leadingName is the variable name that s starts with.
func leadingName(s string) string {
	i := 0
	for i < len(s) && (s[i] == '_' || s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z' ||
		i > 0 && s[i] >= '0' && s[i] <= '9') {
		i++
	}
	return s[:i]
}
