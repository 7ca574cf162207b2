// Package integrity makes the lists of checksums that a station's sealed files
// must match, reads and writes them in the format of sha256sum, and compares
// them with what stands on an assembled root. Hashing never leaves that root:
// links are followed as the station itself would follow them.
package integrity

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Limits of a manifest: what goes beyond them is not a list of checksums that
// somebody made with care.
const (
	maxLine    = 16 << 10 // bytes; PATH_MAX with every byte escaped, and the checksum
	maxEntries = 1 << 20
)

// Entry is one sealed file.
type Entry struct {
	Path   string // absolute in the root, as sealed
	SHA256 string // lower hex
}

// Manifest lists a station's sealed files.
type Manifest []Entry

// Parse reads the format of sha256sum: the checksum, a blank, a blank or "*",
// and the name. A line that starts with a backslash has newlines, carriage
// returns and backslashes of its name escaped. As sha256sum does, Parse
// ignores lines that start with "#" and empty ones; anything else that is not
// an entry is an error, since a seal that is half read protects half.
//
// Errors name the line and never repeat its text: the file may not be a
// manifest at all.
func Parse(r io.Reader) (Manifest, error) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 0, 4096), maxLine)
	// bufio.ScanLines would drop a carriage return silently.
	scanner.Split(scanLines)
	var m Manifest
	seen := map[string]int{}
	line := 0
	for scanner.Scan() {
		line++
		text := scanner.Text()
		if text == "" || text[0] == '#' {
			continue
		}
		e, err := parseLine(text)
		if err != nil {
			return nil, fmt.Errorf("cannot read line %d: %w", line, err)
		}
		if first, ok := seen[e.Path]; ok {
			return nil, fmt.Errorf("cannot read line %d: the file %q is on line %d already", line, e.Path, first)
		}
		if len(m) == maxEntries {
			return nil, fmt.Errorf("cannot read line %d: more than %d entries", line, maxEntries)
		}
		seen[e.Path] = line
		m = append(m, e)
	}
	if err := scanner.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("longer than %d bytes", maxLine)
		}
		return nil, fmt.Errorf("cannot read line %d: %w", line+1, err)
	}
	return m, nil
}

func scanLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

func parseLine(text string) (Entry, error) {
	if strings.HasSuffix(text, "\r") {
		return Entry{}, errors.New("it ends in a carriage return; the file has Windows line ends")
	}
	escaped := text[0] == '\\'
	if escaped {
		text = text[1:]
	}
	const digits = 64
	if len(text) < digits+3 || text[digits] != ' ' || (text[digits+1] != ' ' && text[digits+1] != '*') {
		return Entry{}, errors.New("not a SHA-256 checksum, two blanks and a file name")
	}
	sum := strings.ToLower(text[:digits])
	if _, err := hex.DecodeString(sum); err != nil {
		return Entry{}, errors.New("the checksum is not 64 hexadecimal digits")
	}
	name := text[digits+2:]
	if escaped {
		var err error
		if name, err = unescape(name); err != nil {
			return Entry{}, err
		}
	}
	if err := checkPath(name); err != nil {
		return Entry{}, err
	}
	return Entry{Path: name, SHA256: sum}, nil
}

// checkPath accepts one spelling of a path only, so that no file can be listed
// twice with different checksums.
func checkPath(name string) error {
	switch {
	case !strings.HasPrefix(name, "/"):
		return fmt.Errorf("the name %q is not absolute", name)
	case strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("the name %q holds a NUL byte", name)
	case path.Clean(name) != name:
		return fmt.Errorf("the name %q is to be written %q", name, path.Clean(name))
	}
	return nil
}

func unescape(name string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '\\' {
			b.WriteByte(name[i])
			continue
		}
		i++
		if i == len(name) {
			return "", errors.New("the name ends in a lone backslash")
		}
		switch name[i] {
		case '\\':
			b.WriteByte('\\')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		default:
			return "", errors.New(`the name has an escape other than \\, \n and \r`)
		}
	}
	return b.String(), nil
}

// Format writes the manifest sorted by path, as sha256sum would have written
// it.
func (m Manifest) Format() []byte {
	sorted := slices.Clone(m)
	slices.SortFunc(sorted, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	escape := strings.NewReplacer("\\", `\\`, "\n", `\n`, "\r", `\r`)
	var b bytes.Buffer
	for _, e := range sorted {
		name := e.Path
		if strings.ContainsAny(name, "\\\n\r") {
			b.WriteByte('\\')
			name = escape.Replace(name)
		}
		b.WriteString(e.SHA256)
		b.WriteString("  ")
		b.WriteString(name)
		b.WriteByte('\n')
	}
	return b.Bytes()
}
