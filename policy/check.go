package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"platelayer/topology"
)

// Refusal is one thing that a policy doesn't allow.
type Refusal struct {
	Rule    string
	Line    string // FILE:LINE of the rule
	Place   string // FILE:LINE:COLUMN in the topology file; "" where it isn't known
	Station string // "cluster/station"; "" where it is about an image alone
	Problem string
}

// RefusedError is all that policies don't allow.
type RefusedError struct{ Refusals []Refusal }

func (e *RefusedError) Error() string {
	lines := []string{"the machine's policy refuses this:"}
	for _, r := range e.Refusals {
		at := ""
		if r.Place != "" {
			at = r.Place + ": "
		}
		if r.Station != "" {
			at += fmt.Sprintf("station %q: ", r.Station)
		}
		lines = append(lines, fmt.Sprintf("  %s%s (rule %s, %s)", at, r.Problem, r.Rule, r.Line))
	}
	return strings.Join(lines, "\n")
}

func (p *Policy) line(rule string) string { return fmt.Sprintf("%s:%d", p.path, p.lines[rule]) }

// Image is an image as a policy sees it.
type Image struct {
	Registry, Repository string
	Digests              []string // the image's own and, where it is of one, its index's
}

// Stations tells what of the stations is not allowed, as far as that can be told
// without their images. project is the topology file's folder, without links.
func (p *Policy) Stations(t *topology.Topology, project string, which []*topology.Station) []Refusal {
	var all []Refusal
	for _, s := range which {
		refuse := func(rule, key, value, problem string) {
			all = append(all, Refusal{rule, p.line(rule), t.Place(s.ID(), key, value), s.ID(), problem})
		}
		if !p.privileged {
			for _, power := range powers(s) {
				refuse("privileged", power.key, power.value, power.is)
			}
		}
		if !p.unsealed && len(s.Integrity.Paths) == 0 {
			refuse("unsealed", "", "", "it has no seal")
		}
		if p.limited {
			for _, o := range outside(s) {
				if _, problem := p.Source(project, o.path); problem != "" {
					refuse("binds", o.key, o.value, problem)
				}
			}
		}
	}
	return all
}

type use struct{ key, value, is, path string }

// powers lists what makes a station as mighty as the machine's root: privileged
// by name, and what comes to the same.
func powers(s *topology.Station) []use {
	var all []use
	if s.Privileged {
		all = append(all, use{key: "privileged", is: "it is privileged"})
	}
	for _, c := range s.CapAdd {
		if slices.Contains(mighty(), c) {
			all = append(all, use{key: "cap_add", value: c, is: "the capability " + c + " makes it as mighty as the machine's root"})
		}
	}
	for _, d := range s.Devices {
		all = append(all, use{key: "devices", value: d.Source, is: "it has the machine's device " + d.Source})
	}
	switch profile := s.Security.Seccomp; profile {
	case "":
	case "unconfined":
		all = append(all, use{key: "security_opt", value: "seccomp", is: "it runs without a system call filter"})
	default: // which may allow everything
		all = append(all, use{key: "security_opt", value: "seccomp", is: "it has a system call filter of its own, " + profile})
	}
	return all
}

// mighty are capabilities with which a process reaches out of a container
// (capabilities(7)).
func mighty() []string {
	return []string{"ALL", "BPF", "CHECKPOINT_RESTORE", "DAC_READ_SEARCH", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "PERFMON", "SYSLOG", "SYS_ADMIN", "SYS_BOOT",
		"SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "SYS_TIME"}
}

// outside lists what a station has of the machine's files by their paths.
func outside(s *topology.Station) []use {
	var all []use
	if s.Rootfs != "" && s.Rootfs != "host" {
		all = append(all, use{key: "rootfs", path: s.Rootfs})
	}
	for _, v := range s.Volumes {
		if v.Source != "" {
			all = append(all, use{key: "volumes", value: v.Target, path: v.Source})
		}
	}
	for _, f := range s.Files {
		if f.Source != "" {
			key := "configs"
			if f.Secret {
				key = "secrets"
			}
			all = append(all, use{key: key, value: f.Target, path: f.Source})
		}
	}
	if profile := s.Security.Seccomp; profile != "" && profile != "unconfined" {
		all = append(all, use{key: "security_opt", value: "seccomp", path: profile})
	}
	return all
}

// Sources looks at all that a station has of the machine's files by their paths,
// and tells where each leads.
func (p *Policy) Sources(project string, s *topology.Station) (real map[string]string, refused []Refusal) {
	real = map[string]string{}
	for _, o := range outside(s) {
		to, problem := p.Source(project, o.path)
		if problem != "" {
			refused = append(refused, Refusal{Rule: "binds", Line: p.line("binds"), Station: s.ID(), Problem: problem})
		}
		real[o.path] = to
	}
	return real, refused
}

// LimitsSources tells whether Source allows less than all.
func (p *Policy) LimitsSources() bool { return p.limited }

// Source follows the links of a path of the machine's, and tells why what it leads
// to is not allowed; "" is allowed. Whoever opens it then must follow none.
func (p *Policy) Source(project, path string) (real, problem string) {
	real, err := Resolve(path)
	if err != nil {
		return "", fmt.Sprintf("%s can't be looked at: %v", path, err)
	}
	for _, dir := range p.binds {
		if dir, err = Resolve(dir); err == nil && below(real, dir) {
			return real, ""
		}
	}
	shown := path
	if real != path {
		shown += " (" + real + ")"
	}
	if !p.project {
		return real, shown + " is of the machine's files"
	}
	if now, err := Resolve(project); err != nil || now != project {
		return real, fmt.Sprintf("the project's folder %s is gone, or has become a link", project)
	}
	if dir := systems(project); dir != "" {
		return real, fmt.Sprintf("the project's folder %s is not one, but holds or is part of %s", project, dir)
	}
	if !below(real, project) {
		return real, fmt.Sprintf("%s is outside the project's folder %s", shown, project)
	}
	return real, ""
}

// systems tells which of the system's own folders a project holds or is in: a
// topology file that is read from /dev/stdin or stands in / makes no project of
// them.
func systems(project string) string {
	for _, dir := range []string{"/boot", "/etc", "/home", "/root", "/run", "/usr", "/var"} {
		if below(dir, project) {
			return dir
		}
	}
	// In what is everybody's, others' files are not the project's.
	if project == "/tmp" || project == "/var/tmp" {
		return project
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if below(project, dir) {
			return dir
		}
	}
	return ""
}

func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// Resolve follows the links of as much of a path as there is.
func Resolve(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	if _, err := os.Lstat(path); err == nil {
		return "", errors.New("it is a link that leads nowhere")
	}
	parent, err := Resolve(filepath.Dir(path))
	return filepath.Join(parent, filepath.Base(path)), err
}

// Named tells whether images may come from where an image's name says.
func (p *Policy) Named(i Image) (problem, rule, line string) {
	if p.registries == nil || anyMatches(p.registries, i.Registry, i.Repository) {
		return "", "", ""
	}
	return fmt.Sprintf("images from %s/%s are not allowed", i.Registry, i.Repository), "registries", p.line("registries")
}

// Digested tells whether an image may run, once it is known which one it is.
// signatures are asked for only where a rule wants some.
func (p *Policy) Digested(i Image, signatures func() ([]Signature, error)) (problem, rule, line string) {
	if p.digests != nil && !slices.ContainsFunc(i.Digests, func(d string) bool { return slices.Contains(p.digests, d) }) {
		return fmt.Sprintf("the image %s is not among those that are allowed", i.Digests[0]), "digests", p.line("digests")
	}
	for _, r := range p.signed {
		if r.images != nil && !anyMatches(r.images, i.Registry, i.Repository) {
			continue
		}
		all, err := signatures()
		if !signedBy(all, r.keys, i.Digests) {
			problem := fmt.Sprintf("the image %s has no signature of a key that counts", i.Digests[0])
			if err != nil {
				problem += fmt.Sprintf(" (%v)", err)
			}
			return problem, "signed", fmt.Sprintf("%s:%d", p.path, r.line)
		}
	}
	return "", "", ""
}

func signedBy(all []Signature, keys []Key, digests []string) bool {
	for n := range all {
		if slices.ContainsFunc(keys, func(k Key) bool { return k.verifies(&all[n], digests) }) {
			return true
		}
	}
	return false
}

// WantsSignatures tells whether a rule asks for some.
func (p *Policy) WantsSignatures() bool { return len(p.signed) > 0 }

// SignaturesDir is where the administrator keeps signatures, each in a file
// sha256-HEX.minisig or sha256-HEX.json.
func (p *Policy) SignaturesDir() string { return p.signatures }
