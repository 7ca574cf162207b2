package topology

import (
	"slices"
	"strings"
	"testing"
)

func TestInterpolate(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "$A": "a", "${A}b": "ab", "$$A": "$A", "$$$A": "$a", "$A-b": "a-b",
		"${NONE:-d}": "d", "${NONE-d}": "d", "${EMPTY:-d}": "d", "${EMPTY-d}": "", "${A:-d}": "a",
		"${A:+x}": "x", "${EMPTY:+x}": "", "${EMPTY+x}": "x", "${NONE+x}": "", "${NONE:+x}": "",
		"${A:?no}": "a", "${EMPTY?no}": "", "${NONE:-${A}}": "a", "${NONE:-${NONE2:-${A}}}!": "a!",
		"${NONE:-}": "", "${NONE:-a}b}": "ab}", "${NONE:-$$}": "$", "${NONE:-a:b-c}": "a:b-c",
	} {
		if got, err := interpolate(in, testEnv); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"$", "a $ b", "${", "${A", "${}", "${1}", "${A!}", "${A:}", "$NONE", "${NONE}", "${EMPTY:?x}",
		strings.Repeat("${NONE:-", 100) + strings.Repeat("}", 100)} {
		if got, err := interpolate(in, testEnv); err == nil {
			t.Errorf("%s: accepted as %q", in, got)
		}
	}
}

func TestSplitWords(t *testing.T) {
	for in, want := range map[string][]string{
		"": nil, "  ": nil, "a  b": {"a", "b"}, `a 'b c' "d e"`: {"a", "b c", "d e"}, `a''b`: {"ab"}, `''`: {""},
		`a\ b`: {"a b"}, `'a\b'`: {`a\b`}, `"a\"b"`: {`a"b`}, "a\nb\tc": {"a", "b", "c"}, `'a;b' "c|d"`: {"a;b", "c|d"}, `a\;b`: {"a;b"},
	} {
		if got, problem := splitWords(in); problem != "" || !slices.Equal(got, want) {
			t.Errorf("%q: %q %s", in, got, problem)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{"1": 1, "10b": 10, "1k": 1024, "1KB": 1024, "1.5g": 3 << 29, "64m": 64 << 20,
		"2gb": 2 << 30, "1t": 1 << 40, "1 mib": 1 << 20} {
		if got, ok := parseBytes(in); !ok || got != want {
			t.Errorf("%s: %d, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "0", "-1", "1x", "k", "1ib", "99999999999999999999", "9223372036854775807k", "0.1", "1e3"} {
		if got, ok := parseBytes(in); ok {
			t.Errorf("%s: accepted as %d", in, got)
		}
	}
}

func TestSignals(t *testing.T) {
	for in, want := range map[string]string{"TERM": "SIGTERM", "sigint": "SIGINT", "9": "SIGKILL", "SIGRTMIN+3": "SIGRTMIN+3",
		"37": "SIGRTMIN+3", "RTMAX-1": "SIGRTMIN+29", "SIGSYS": "SIGSYS", "32": "32", "POLL": "SIGIO"} {
		if got, ok := signalName(in); !ok || got != want {
			t.Errorf("%s: %s, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "SIG", "0", "65", "-1", "SIGFOO", "RTMIN+31", "RTMAX-31", "RTMIN+"} {
		if got, ok := signalName(in); ok {
			t.Errorf("%q: accepted as %s", in, got)
		}
	}
	for in, want := range map[string]int{"SIGTERM": 15, "SIGQUIT": 3, "SIGRTMIN+3": 37, "SIGSYS": 31} {
		if got := (&Station{StopSignal: in}).Signal(); got != want {
			t.Errorf("%s: %d", in, got)
		}
	}
}

func TestNameOfFolder(t *testing.T) {
	for in, want := range map[string]string{"shop": "shop", "My Shop": "myshop", "_x-": "x", "é": "", "a.b": "ab", "/": "",
		strings.Repeat("a", 62) + "-b": strings.Repeat("a", 62)} {
		if got := nameOfFolder(in); got != want {
			t.Errorf("%s: %q", in, got)
		}
	}
}

func TestParseEnv(t *testing.T) {
	got, err := ParseEnv(".env", []byte("# note\nA=1\r\nexport B = two words # note\nC='$A # \\'x'\n\nD=\"a\\nb $A \\$A\"\nE=${A}x${NONE:-y}\nF=\nG=\"two\nlines\"\nH=a#b\nI: yes # note\nexport J :\"a: b=c\"\nK=a:b\nL:a=b"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "1", "B": "two words", "C": "$A # 'x", "D": "a\nb 1 $A", "E": "1xy", "F": "", "G": "two\nlines", "H": "a#b",
		"I": "yes", "J": "a: b=c", "K": "a:b", "L": "a=b"}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, not %q", name, got[name], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	for file, line := range map[string]string{"A=1\nB": "dir/.env:2:1: ", "A: 1\n\n1A: 2": "dir/.env:3:1: ",
		"A='x\n": "dir/.env:1:1: ", "A='x' y": "dir/.env:1:1: ", "=1": "dir/.env:1:1: ", "A=${": "dir/.env:1:1: ", "A B: 1": "dir/.env:1:1: "} {
		if _, err := ParseEnv("dir/.env", []byte(file)); err == nil || !strings.HasPrefix(err.Error(), line) || !strings.Contains(err.Error(), "hint: ") {
			t.Errorf("%q: %v", file, err)
		}
	}
}

// A line of an env_file that can't be read may be a secret, or a part of one.
func TestEnvErrorsAreDiscreet(t *testing.T) {
	for _, text := range []string{"hunter2", "export hunter2", "2hunter2=1", "hunter2/x: 1", "A='x' hunter2", "A=\"hunter2", "A=${hunter2!}", "A=${hunter2:x}", "A=${B:?hunter2}", "A=$ hunter2"} {
		for name, parse := range map[string]func() error{
			".env": func() error { _, err := ParseEnv("dir/.env", []byte("X=1\n"+text)); return err },
			"env_file": func() error {
				_, err := Load("f.yaml", []byte("clusters: {c: {stations: {a: {env_file: [{path: secret.env, format: raw}, plain.env]}}}}"), Options{ReadFile: func(path string) ([]byte, error) {
					if strings.HasSuffix(path, "plain.env") {
						return []byte("X=1\n" + text), nil
					}
					return []byte("X=1\nhunter2/x=1"), nil
				}})
				return err
			},
		} {
			err := parse()
			if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), ":2:") && !strings.Contains(err.Error(), "line 2: ") {
				t.Errorf("%s, %s: %v", name, text, err)
			}
		}
	}
}

func TestLookup(t *testing.T) {
	top := mustLoad(t, "name: shop\nclusters: {web: {stations: {a: , b: }}, db: {stations: {a: , pg: }}}")
	for ref, want := range map[string]string{"b": "web/b", "db/a": "db/a", "shop.db.pg": "db/pg", "pg": "db/pg"} {
		if s, err := top.Lookup(ref); err != nil || s.ID() != want {
			t.Errorf("%s: %v, %v", ref, s, err)
		}
	}
	for ref, want := range map[string]string{"a": "web/a or db/a", "pgg": "did you mean pg?", "nobody": "web/a, web/b, db/a, db/pg", "web/pg": "no station"} {
		if _, err := top.Lookup(ref); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}
