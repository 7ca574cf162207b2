package integrity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	zeros = strings.Repeat("0", 64)
	sumA  = strings.Repeat("ab", 32)
)

func sumOf(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}

func TestParse(t *testing.T) {
	text := "# made by hand\n\n" +
		zeros + "  /etc/plain\n" +
		strings.ToUpper(sumA) + " */etc/binary\n" +
		"\\" + zeros + "  /a\\nb\\\\c\\r\n" +
		zeros + "  /with\\backslash\n" +
		zeros + "  /last without newline"
	got, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := Manifest{
		{"/etc/plain", zeros},
		{"/etc/binary", sumA},
		{"/a\nb\\c\r", zeros},
		{`/with\backslash`, zeros},
		{"/last without newline", zeros},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"windows":     {zeros + "  /a\r\n", "Windows line ends"},
		"relative":    {zeros + "  a\n", "not absolute"},
		"dots":        {zeros + "  /a/../b\n", `to be written "/b"`},
		"slash":       {zeros + "  /a/\n", "to be written"},
		"twice":       {zeros + "  /a\n" + sumA + "  /a\n", "line 2: the file \"/a\" is on line 1"},
		"short":       {"abc  /a\n", "not a SHA-256"},
		"not hex":     {strings.Repeat("z", 64) + "  /a\n", "64 hexadecimal"},
		"one blank":   {zeros + " /a\n", "not a SHA-256"},
		"bad escape":  {"\\" + zeros + "  /a\\x\n", "escape other"},
		"half escape": {"\\" + zeros + "  /a\\\n", "lone backslash"},
		"long":        {zeros + "  /" + strings.Repeat("a", maxLine) + "\n", "longer than"},
		"nul":         {zeros + "  /a\x00b\n", "NUL"},
		"secret":      {"root:$6$hash:::\n", "line 1: not a SHA-256"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(strings.NewReader(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got error %v, want %q", err, test.want)
			}
			if strings.Contains(err.Error(), "$6$") {
				t.Errorf("the error repeats the file's text: %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(zeros + "  /a\n\\" + zeros + " */b\\nc\n"))
	f.Add([]byte("# x\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(bytes.NewReader(text))
		if err != nil {
			return
		}
		formatted := m.Format()
		again, err := Parse(bytes.NewReader(formatted))
		if err != nil {
			t.Fatalf("cannot read what Format wrote: %v", err)
		}
		if !bytes.Equal(again.Format(), formatted) || len(again) != len(m) {
			t.Fatalf("a round trip changed %q to %q", formatted, again.Format())
		}
	})
}

func TestCompare(t *testing.T) {
	paths := []string{"/etc/nginx", "/srv/app", "/file", "/gone", "/goner"}
	want := Manifest{
		{"/etc/nginx/a", zeros},
		{"/etc/nginx/b", zeros},
		{"/etc/nginx/c", zeros},
		{"/etc/nginx/d", zeros},
		{"/etc/nginxes", zeros},
		{"/goner/x", zeros},
	}
	found := []Found{
		{Path: "/etc/nginx/a", SHA256: zeros},
		{Path: "/etc/nginx/b", SHA256: sumA},
		{Path: "/etc/nginx/d", Problem: "it is a FIFO", Special: true},
		{Path: "/etc/nginx/x", SHA256: sumA},
		{Path: "/etc/nginx/y", Problem: "it is a FIFO", Special: true},
		{Path: "/etc/nginx/z", Problem: "permission denied"},
		{Path: "/file", SHA256: sumA},
		{Path: "/gone", Problem: "it does not exist", Absent: true},
		{Path: "/goner", Problem: "it does not exist", Absent: true},
	}
	var got []string
	for _, b := range Compare(paths, want, found) {
		got = append(got, b.Path+" "+b.Reason)
	}
	if d := cmp.Diff([]string{
		"/etc/nginx/b changed",
		"/etc/nginx/c missing",
		"/etc/nginx/d unreadable",
		"/etc/nginx/x extra",
		"/etc/nginx/y extra",
		"/etc/nginx/z unreadable",
		"/etc/nginxes not sealed",
		"/file unlisted",
		"/gone missing",
		"/goner/x missing",
	}, got); d != "" {
		t.Error(d)
	}
	if bad := Compare([]string{"/empty"}, nil, nil); len(bad) != 0 {
		t.Errorf("an empty sealed folder is bad: %v", bad)
	}
}

func TestBadIsOneLine(t *testing.T) {
	b := Bad{Path: "/a\nb", Reason: Changed, Expected: zeros, Found: sumA}
	if got, want := b.String(), `"/a\nb": changed, expected `+zeros+", found "+sumA; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
