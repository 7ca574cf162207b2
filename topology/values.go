package topology

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var sizeText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([kmgtKMGT]?)([iI]?[bB])?$`)

// parseBytes reads a size as compose does: a number, perhaps with a
// fraction, and k, m, g or t, with steps of 1024.
func parseBytes(s string) (int64, bool) {
	m := sizeText.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	factor := int64(1)
	if m[2] != "" {
		factor <<= 10 * (1 + strings.Index("kmgt", strings.ToLower(m[2])))
	} else if len(m[3]) == 2 {
		return 0, false // "ib" without a step
	}
	if whole, err := strconv.ParseInt(m[1], 10, 64); err == nil {
		return whole * factor, whole > 0 && whole <= math.MaxInt64/factor
	}
	f, err := strconv.ParseFloat(m[1], 64)
	f *= float64(factor)
	return int64(f), err == nil && f >= 1 && f < math.MaxInt64
}

// words reads a command: a list as it is, a text split into words. The
// result is nil only where the file says nothing.
func (l *loader) words(n *node) []string {
	if n == nil || n.kind == null {
		return nil
	}
	out := []string{}
	if n.kind == sequence {
		for _, item := range n.good() {
			out = append(out, item.text)
		}
		return out
	}
	split, problem := splitWords(n.text)
	if problem != "" {
		l.spoil(n, problem, `write a list of words; for a shell's own signs: [sh, -c, "..."]`)
	}
	return append(out, split...)
}

// splitWords splits a command line as compose does: quotes keep words
// together, a backslash takes the next character as it is (n and t are line
// end and tab). A shell's operators, which compose drops silently together
// with all that follows, are refused.
func splitWords(s string) (words []string, problem string) {
	var word strings.Builder
	started, escaped, quote := false, false, rune(0)
	for _, r := range s {
		switch {
		case escaped:
			switch r {
			case 'n':
				r = '\n'
			case 't':
				r = '\t'
			}
			word.WriteRune(r)
			escaped, started = false, true
		case r == '\\' && quote != '\'':
			escaped = true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, started = r, true
		case strings.ContainsRune(" \t\r\n", r):
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		case strings.ContainsRune(";&|<>()`", r):
			return nil, fmt.Sprintf("%c means something only to a shell, and no shell runs the command", r)
		default:
			word.WriteRune(r)
			started = true
		}
	}
	switch {
	case escaped:
		return nil, "the command line ends with a backslash"
	case quote != 0:
		return nil, fmt.Sprintf("the command line has a %c that is not closed", quote)
	case started:
		words = append(words, word.String())
	}
	return words, ""
}

// environment reads the variables of a station, sorted. One without a value
// takes ours and is left out where we have none.
func (l *loader) environment(n *node) []string {
	if n == nil {
		return nil
	}
	type variable struct {
		name, value string
		given       bool
		n           *node
	}
	var all []variable
	for _, p := range n.pairs {
		if !p.val.bad {
			at := &node{position: p.at}
			all = append(all, variable{p.key, p.val.text, p.val.kind != null, at})
		}
	}
	for _, item := range n.items {
		if !item.bad {
			name, value, given := strings.Cut(item.text, "=")
			all = append(all, variable{name, value, given, item})
		}
	}
	var out []string
	seen := map[string]bool{}
	for _, v := range all {
		switch {
		case v.name == "" || strings.ContainsAny(v.name, "= \t\r\n"):
			l.spoil(v.n, fmt.Sprintf("%s is not a variable's name", quoted(v.name)), "write NAME=value")
			continue
		case seen[v.name]:
			l.spoil(v.n, fmt.Sprintf("variable %s is set twice", v.name), "remove one")
			continue
		}
		seen[v.name] = true
		if !v.given && l.opt.LookupEnv != nil {
			v.value, v.given = l.opt.LookupEnv(v.name)
		}
		if v.given {
			v.name += "=" + v.value
		}
		out = append(out, v.name)
	}
	slices.Sort(out)
	return out
}
