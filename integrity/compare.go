package integrity

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Reasons a file is bad.
const (
	Missing    = "missing"    // listed, and not there
	Changed    = "changed"    // another checksum
	Unreadable = "unreadable" // there, and cannot be hashed
	Extra      = "extra"      // in a sealed folder, and not listed
	Unlisted   = "unlisted"   // a sealed path that the manifest does not list
	NotSealed  = "not sealed" // listed, and under no sealed path
)

// Bad is one file that does not match its seal.
type Bad struct {
	Path     string `json:"path"`
	Reason   string `json:"reason"`
	Expected string `json:"expected,omitempty"` // checksum
	Found    string `json:"found,omitempty"`    // checksum
	Detail   string `json:"detail,omitempty"`
}

// String is one line, whatever bytes the file's name holds.
func (b Bad) String() string {
	s := printable(b.Path) + ": " + b.Reason
	if b.Detail != "" {
		s += " (" + printable(b.Detail) + ")"
	}
	if b.Expected != "" {
		s += ", expected " + b.Expected
	}
	if b.Found != "" {
		s += ", found " + b.Found
	}
	return s
}

func printable(name string) string {
	if quoted := fmt.Sprintf("%q", name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

// Found is what Scan saw at a path: a checksum, or why there is none.
type Found struct {
	Path    string
	SHA256  string // "" when Problem says why
	Problem string
	// Absent is set for a sealed path that does not exist.
	Absent bool
	// Special is set for what is neither a file nor a folder nor a link.
	Special bool
}

// Compare says which files do not match. It is pure. The result is sorted by
// path.
func Compare(paths []string, want Manifest, found []Found) []Bad {
	wanted := make(map[string]string, len(want))
	for _, e := range want {
		wanted[e.Path] = e.SHA256
	}
	sealed := make(map[string]bool, len(paths))
	for _, p := range paths {
		sealed[p] = true
	}
	var bad []Bad
	seen := make(map[string]bool, len(found))
	for _, f := range found {
		if f.Absent || seen[f.Path] {
			continue
		}
		seen[f.Path] = true
		sum, listed := wanted[f.Path]
		b := Bad{Path: f.Path, Expected: sum, Found: f.SHA256, Detail: f.Problem}
		switch {
		case f.SHA256 != "" && f.SHA256 == sum:
			continue
		case f.SHA256 != "" && listed:
			b.Reason = Changed
		case f.SHA256 == "" && (listed || sealed[f.Path] || !f.Special):
			b.Reason = Unreadable
		case sealed[f.Path]:
			b.Reason = Unlisted
		default:
			b.Reason = Extra
		}
		bad = append(bad, b)
	}
	// listedUnder holds the sealed paths that some entry is about.
	listedUnder := make(map[string]bool, len(paths))
	for _, e := range want {
		under := false
		for _, p := range paths {
			if covers(p, e.Path) {
				under = true
				listedUnder[p] = true
			}
		}
		switch {
		case !under:
			bad = append(bad, Bad{Path: e.Path, Reason: NotSealed, Expected: e.SHA256,
				Detail: "the manifest lists it but no sealed path covers it"})
		case !seen[e.Path]:
			bad = append(bad, Bad{Path: e.Path, Reason: Missing, Expected: e.SHA256})
		}
	}
	for _, f := range found {
		// With entries below it, each of these has been named already.
		if f.Absent && !listedUnder[f.Path] && !seen[f.Path] {
			seen[f.Path] = true
			bad = append(bad, Bad{Path: f.Path, Reason: Missing, Detail: f.Problem})
		}
	}
	slices.SortFunc(bad, func(a, b Bad) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Reason, b.Reason))
	})
	return bad
}

// covers says whether the sealed path p covers name.
func covers(p, name string) bool {
	if p == "/" || p == name {
		return true
	}
	return len(name) > len(p) && name[len(p)] == '/' && strings.HasPrefix(name, p)
}
