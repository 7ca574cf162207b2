// Package policy holds what a machine's administrator allows topologies: which
// images, and which powers over the machine. It is above any topology file. It
// reads its own file and keys, and asks nobody.
package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"gopkg.in/yaml.v3"
)

// File is where the policy of a machine is.
const File = "/etc/platelayer/policy.yaml"

// Policy is the content of such a file. What it doesn't say is allowed.
type Policy struct {
	path  string
	lines map[string]int // of its rules

	registries []string // patterns of REGISTRY/REPOSITORY
	digests    []string
	signed     []signedRule
	signatures string // a folder of signatures that the administrator keeps
	privileged bool
	binds      []string // folders; nil is any
	project    bool     // besides binds, the project's own folder
	limited    bool     // binds are
	unsealed   bool
}

type signedRule struct {
	images []string // patterns; none is all
	keys   []Key
	line   int
}

// BadError is a policy that can't be used, so that nothing may run.
type BadError struct {
	Path string
	Line int // 0 for the file as a whole
	Err  error
}

func (e *BadError) Error() string {
	at := e.Path
	if e.Line > 0 {
		at += fmt.Sprintf(":%d", e.Line)
	}
	return fmt.Sprintf("the machine's policy can't be used, and nothing runs without it: %s: %v", at, e.Err)
}

func (e *BadError) Unwrap() error { return e.Err }

// Read reads a policy; nil where there is none. The file and what it names must
// be root's own, or it says nothing about what the administrator wants.
func Read(path string) (*Policy, error) {
	text, err := readOwn(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = lost(path); err == nil {
			return nil, nil
		}
	}
	if err != nil {
		return nil, &BadError{Path: path, Err: err}
	}
	return parse(path, text)
}

// lost tells of a link that leads nowhere, the file itself or a folder of it: there
// was to be a policy, which isn't that all is allowed.
func lost(file string) error {
	for ; file != "/" && file != "."; file = filepath.Dir(file) {
		if _, err := os.Lstat(file); err == nil {
			_, err = os.Stat(file)
			return err
		}
	}
	return nil
}

const maxSize = 1 << 20 // bytes

// readOwn reads a file that nobody but root can have written.
func readOwn(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err == nil {
		err = checkOwn(info)
	}
	if err != nil {
		return nil, err
	}
	// Who can rename in its folder can put another in its place.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return nil, err
		}
		if info.Mode()&fs.ModeSticky == 0 || dir == filepath.Dir(real) {
			if err := checkOwn(info); err != nil {
				return nil, fmt.Errorf("its folder %s: %w", dir, err)
			}
		}
		if dir == "/" {
			break
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(text) > maxSize {
		err = fmt.Errorf("it is larger than %d bytes", maxSize)
	}
	return text, err
}

func checkOwn(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return errors.New("it has no owner")
	case st.Uid != 0:
		return fmt.Errorf("it belongs to user %d instead of root", st.Uid)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others than root may write to it (mode %04o)", info.Mode().Perm())
	}
	return nil
}

// parse reads each rule with its line. A key that is not known might forbid
// something: it is refused.
func parse(file string, text []byte) (*Policy, error) {
	p := &Policy{path: file, lines: map[string]int{}, signatures: filepath.Join(filepath.Dir(file), "signatures"), privileged: true, unsealed: true}
	var doc yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	switch err := d.Decode(&doc); {
	case err == io.EOF:
		return p, nil
	case err != nil:
		return nil, &BadError{Path: file, Err: err}
	}
	if err := d.Decode(new(yaml.Node)); err != io.EOF {
		return nil, &BadError{Path: file, Err: errors.New("it is more than one document")}
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return p, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, &BadError{file, root.Line, errors.New("it is not a mapping of rules")}
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if _, twice := p.lines[key.Value]; twice {
			return nil, &BadError{file, key.Line, fmt.Errorf("%q is set twice", key.Value)}
		}
		p.lines[key.Value] = key.Line
		if err := p.rule(key.Value, value); err != nil {
			return nil, &BadError{file, value.Line, fmt.Errorf("%s: %w", key.Value, err)}
		}
	}
	return p, nil
}

func (p *Policy) rule(key string, value *yaml.Node) (err error) {
	if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
		return errors.New("it says nothing; remove it, or write [] to allow none")
	}
	switch key {
	case "registries":
		p.registries, err = patterns(value)
	case "digests":
		if p.digests, err = words(value); err == nil {
			for _, d := range p.digests {
				if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(d) {
					return fmt.Errorf("%q is not a digest, sha256: and 64 hexadecimal digits", d)
				}
			}
		}
	case "signed":
		return p.signedRules(value)
	case "signatures":
		if err = value.Decode(&p.signatures); err == nil && !path.IsAbs(p.signatures) {
			err = errors.New("it is not an absolute folder")
		}
	case "privileged":
		p.privileged, err = yes(value)
	case "unsealed":
		p.unsealed, err = yes(value)
	case "binds":
		return p.bindRule(value)
	default:
		return errors.New("there is no such rule; there are registries, digests, signed, signatures, privileged, binds and unsealed")
	}
	return err
}

// bindRule reads any, project, none or a list of folders, project among them.
func (p *Policy) bindRule(value *yaml.Node) error {
	p.limited = true
	list := []string{}
	if value.Kind == yaml.ScalarNode {
		list = append(list, value.Value)
		if value.Value == "any" {
			p.limited = false
			return nil
		}
		if value.Value == "none" {
			return nil
		}
		if value.Value != "project" {
			return fmt.Errorf("it is any, project, none or a list of folders, not %q", value.Value)
		}
	} else {
		var err error
		if list, err = words(value); err != nil {
			return err
		}
	}
	for _, dir := range list {
		switch {
		case dir == "project":
			p.project = true
		case path.IsAbs(dir) && path.Clean(dir) == dir:
			p.binds = append(p.binds, dir)
		default:
			return fmt.Errorf("%q is neither project nor an absolute folder", dir)
		}
	}
	return nil
}

func (p *Policy) signedRules(value *yaml.Node) error {
	if value.Kind != yaml.SequenceNode {
		return errors.New("it is a list of images and keys")
	}
	for _, n := range value.Content {
		r := signedRule{line: n.Line}
		if n.Kind != yaml.MappingNode {
			return errors.New("each is a mapping with images and keys")
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			var err error
			switch key := n.Content[i].Value; key {
			case "images":
				r.images, err = patterns(n.Content[i+1])
				if err == nil && len(r.images) == 0 {
					err = errors.New("it names none")
				}
			case "keys":
				r.keys, err = readKeys(n.Content[i+1])
			default:
				err = fmt.Errorf("there is no %q; there are images and keys", key)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", n.Content[i].Value, err)
			}
		}
		if len(r.keys) == 0 {
			return fmt.Errorf("the rule of line %d has no keys", n.Line)
		}
		p.signed = append(p.signed, r)
	}
	return nil
}

// words reads a list; an empty one is not nil.
func words(value *yaml.Node) ([]string, error) {
	list := []string{}
	if value.Decode(&list) != nil {
		return nil, errors.New("it is a list: [...]")
	}
	return list, nil
}

func yes(value *yaml.Node) (bool, error) {
	var b bool
	if value.Decode(&b) != nil {
		return false, fmt.Errorf("it is true or false, not %q", value.Value)
	}
	return b, nil
}

// patterns reads patterns of REGISTRY/REPOSITORY.
func patterns(value *yaml.Node) ([]string, error) {
	list, err := words(value)
	if err != nil {
		return nil, err
	}
	for n, text := range list {
		if !regexp.MustCompile(`^[a-zA-Z0-9*.\[\]:-]+(/[a-z0-9._*-]+)*$`).MatchString(text) {
			return nil, fmt.Errorf("%q is not a pattern of images: REGISTRY[/REPOSITORY], with * for a part and ** for the rest", text)
		}
		// What matches nothing would not restrict anything either.
		switch host, _, _ := strings.Cut(text, "/"); {
		case strings.EqualFold(host, "index.docker.io"):
			return nil, fmt.Errorf("%q matches nothing: write docker.io", text)
		case !strings.ContainsAny(host, ".:*") && !strings.EqualFold(host, "localhost"):
			return nil, fmt.Errorf("%q begins with no registry: Docker's own images are docker.io/library/NAME", text)
		}
		list[n] = strings.ToLower(text) // the same host (RFC 4343); repositories are in any case
	}
	return list, nil
}

// matches tells whether a pattern means a repository: * stands for anything but
// a slash, ** at the end for the rest; a registry alone means all of it.
func matches(pattern, registry, repository string) bool {
	var re strings.Builder
	host, rest, found := strings.Cut(pattern, "/")
	registry = strings.ToLower(registry)
	wild := func(text string) {
		for n, part := range strings.Split(text, "*") {
			if n > 0 {
				re.WriteString("[^/]*")
			}
			re.WriteString(regexp.QuoteMeta(part))
		}
	}
	wild(host)
	if !found {
		return regexp.MustCompile("^" + re.String() + "$").MatchString(registry)
	}
	re.WriteString("/")
	before, all := strings.CutSuffix(rest, "**")
	wild(before)
	if all {
		re.WriteString(".+")
	}
	return regexp.MustCompile("^" + re.String() + "$").MatchString(registry + "/" + repository)
}

func anyMatches(list []string, registry, repository string) bool {
	for _, pattern := range list {
		if matches(pattern, registry, repository) {
			return true
		}
	}
	return false
}
