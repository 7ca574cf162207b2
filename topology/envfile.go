package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// environmentOf puts a station's variables together: those of its env_files,
// later ones first, below those of environment. One that comes without a value and
// that nobody sets is not there; of a station on an image it stays as a name alone,
// since the image may set it.
func (l *loader) environmentOf(s *stationDraft) []string {
	own := l.environment(s.body.get("environment"))
	values := map[string]string{}
	for _, n := range s.body.get("env_file").good() {
		maps.Copy(values, l.envFile(n))
	}
	all := mergeEnvironment(pairsOf(values), own)
	if s.out.Image != "" {
		for _, variable := range own {
			if !strings.Contains(variable, "=") {
				all = append(all, variable)
			}
		}
		slices.Sort(all)
	}
	return slices.Clip(all)
}

func (l *loader) envFile(n *node) map[string]string {
	at, required, raw := n, true, false
	if n.kind == mapping {
		if at = n.get("path"); at == nil {
			return nil
		}
		if r := n.get("required"); r != nil {
			required = r.isTrue()
		}
		raw = n.get("format") != nil
	}
	path, ok := l.machinePath(at, at.text)
	if !ok {
		return nil
	}
	data, err := l.read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !required:
		return nil
	case err != nil:
		l.spoil(at, fmt.Sprintf("cannot read env_file: %v", err), "check the path; {path: ..., required: false} where it may be missing")
		return nil
	}
	var values map[string]string
	if raw {
		values, err = rawEnv(string(data), l.opt.LookupEnv)
	} else {
		values, err = parseEnv(data, l.opt.LookupEnv, true)
	}
	if err != nil {
		l.spoil(at, fmt.Sprintf("env_file %s: %v", path, err), envLineHint)
		return nil
	}
	for name, value := range values {
		if strings.ContainsRune(value, 0) {
			l.spoil(at, fmt.Sprintf("env_file %s: variable %s has a NUL byte", path, name), envLineHint)
			return nil
		}
	}
	return values
}

// read reads a file that the topology's names.
func (l *loader) read(path string) ([]byte, error) {
	if l.opt.ReadFile == nil {
		return nil, fmt.Errorf("%s: no files are read here", path)
	}
	if l.filesRead++; l.filesRead > maxFiles {
		return nil, fmt.Errorf("more than %d files", maxFiles)
	}
	data, err := l.opt.ReadFile(path)
	if err == nil && len(data) > maxBytes {
		return nil, fmt.Errorf("%s is larger than 4 MiB", path)
	}
	return data, err
}

// maxFiles bounds what one topology makes Load read.
const maxFiles = 10_000

// rawEnv takes the values as they stand.
func rawEnv(text string, lookup func(string) (string, bool)) (map[string]string, error) {
	values := map[string]string{}
	i := 0
	for line := range strings.Lines(text) {
		i++
		line = strings.TrimRight(line, "\r\n")
		if trimmed := strings.TrimSpace(line); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		name, value, given := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); name == "" || leadingName(name) != name {
			return nil, fmt.Errorf("line %d: what stands before = is not a variable's name", i)
		}
		if !given && lookup != nil {
			value, given = lookup(name)
		}
		if given {
			values[name] = value
		}
	}
	return values, nil
}
