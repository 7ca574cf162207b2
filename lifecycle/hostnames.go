package lifecycle

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"platelayer/topology"
)

// The hosts file of the machine holds a block of each topology that asked for
// one. Every line of it ends with the topology's mark, so that its removal
// leaves whatever others wrote around it, byte for byte. It stands first, where
// it wins and where the file's last line doesn't matter.

// HostLine is one line of a hosts file (hosts(5)).
type HostLine struct {
	Address netip.Addr `json:"address"`
	Names   []string   `json:"names"` // the station's, then its aliases
}

func (h HostLine) String() string { return h.Address.String() + " " + strings.Join(h.Names, " ") }

// HostLines lists the stations' full names and aliases as a hosts file has
// them. A station has a name in each cluster that it is in, and aliases in its
// own.
func HostLines(t *topology.Topology) []HostLine {
	lines := []HostLine{}
	for _, s := range t.Stations() {
		for _, leg := range interfaces(s) {
			domain := t.Cluster(leg.Cluster).Domain
			names := []string{s.Name + "." + domain}
			if leg.Cluster == s.Cluster {
				for _, a := range s.Aliases {
					if !strings.Contains(a, ".") {
						a += "." + domain
					}
					names = append(names, a)
				}
			}
			for _, a := range leg.Addresses {
				lines = append(lines, HostLine{a, names})
			}
		}
	}
	return lines
}

func hostsMark(name string) string { return " # platelayer " + name }

// withoutHosts is a hosts file without a topology's block.
func withoutHosts(text, name string) string {
	var rest strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(strings.TrimSuffix(line, "\n"), hostsMark(name)) {
			rest.WriteString(line)
		}
	}
	return rest.String()
}

// withHosts is a hosts file with a topology's block in the place of its earlier
// one. What another topology has there it leaves out, and names whose it is.
func withHosts(text, name string, lines []HostLine) (with string, others []string) {
	rest := withoutHosts(text, name)
	taken := map[string]string{}
	for line := range strings.Lines(rest) {
		if entry, owner, marked := strings.Cut(strings.TrimSuffix(line, "\n"), hostsMark("")); marked {
			for _, field := range strings.Fields(entry)[min(1, len(strings.Fields(entry))):] {
				taken[field] = owner
			}
		}
	}
	var block strings.Builder
	for _, l := range lines {
		names := slices.DeleteFunc(slices.Clone(l.Names), func(n string) bool {
			if taken[n] != "" {
				others = append(others, taken[n])
			}
			return taken[n] != ""
		})
		if len(names) > 0 {
			fmt.Fprintf(&block, "%s%s\n", HostLine{l.Address, names}, hostsMark(name))
		}
	}
	slices.Sort(others)
	return block.String() + rest, slices.Compact(others)
}

// hosts is the machine's hosts file, or with --root one in that folder.
func (l Layout) hosts() string {
	if l.Run == "/run/platelayer" {
		return "/etc/hosts"
	}
	return filepath.Join(filepath.Dir(l.Run), "hosts")
}

// name puts the stations that the machine reaches into its hosts file. Without
// asked it only renews what is there.
func (o outside) name(t *topology.Topology, routes []netip.Prefix, asked bool) (notices []string, err error) {
	var lines []HostLine
	far := 0
	for _, h := range HostLines(t) {
		if slices.ContainsFunc(routes, func(p netip.Prefix) bool { return p.Contains(h.Address) }) {
			lines = append(lines, h)
		} else {
			far++
		}
	}
	if asked && far > 0 {
		notices = append(notices, fmt.Sprintf("not in %s, for want of the machine's routes: %d of the stations' addresses", o.layout.hosts(), far))
	}
	err = o.editHosts(func(text string) string {
		if !asked && !strings.Contains(text, hostsMark(t.Name)+"\n") {
			return text // it went meanwhile
		}
		with, others := withHosts(text, t.Name, lines)
		for _, other := range others {
			notices = append(notices, fmt.Sprintf("names of stations are not in %s: topology %q has them there", o.layout.hosts(), other))
		}
		return with
	})
	return notices, err
}

// unname takes a topology out of the hosts file.
func (o outside) unname(name string) error {
	if _, err := os.Stat(o.layout.hosts()); err != nil {
		return nil
	}
	return o.editHosts(func(text string) string { return withoutHosts(text, name) })
}

// editHosts replaces the hosts file by what edit makes of it, at once, with its
// mode, owner and SELinux label. Others of this program wait meanwhile.
func (o outside) editHosts(edit func(text string) string) error {
	failed := func(err error) error { return fmt.Errorf("cannot edit %s: %w", o.layout.hosts(), err) }
	lockFile, err := os.OpenFile(filepath.Join(o.layout.locks(), ".hosts"), os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(o.layout.locks(), 0o700); err == nil {
			lockFile, err = os.OpenFile(filepath.Join(o.layout.locks(), ".hosts"), os.O_CREATE|os.O_RDWR, 0o600)
		}
	}
	if err != nil {
		return failed(err)
	}
	defer lockFile.Close()
	if err := syscall.Flock(int(lockFile.Fd()), syscall.LOCK_EX); err != nil {
		return failed(err)
	}
	path, err := filepath.EvalSymlinks(o.layout.hosts())
	if errors.Is(err, os.ErrNotExist) {
		path, err = o.layout.hosts(), nil
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing {
		return failed(err)
	}
	text := edit(string(data))
	switch {
	case text == string(data):
		return nil
	case text == "":
		err = os.Remove(path) // there was none, or nothing in it
	case missing:
		err = os.WriteFile(path, []byte(text), 0o644)
	default:
		err = replaceLike(path, []byte(text))
	}
	if err != nil {
		return failed(err)
	}
	return nil
}

// replaceLike replaces a file at once by one of the same mode, owner and label.
// One that is a mount of its own, as in a container, is written in place.
func replaceLike(path string, data []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".platelayer-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && err == nil {
		err = f.Chown(int(stat.Uid), int(stat.Gid))
	}
	if err == nil {
		err = f.Chmod(info.Mode().Perm())
	}
	const label = "security.selinux"
	value := make([]byte, 4096)
	if n, xerr := syscall.Getxattr(path, label, value); err == nil && xerr == nil {
		err = syscall.Setxattr(f.Name(), label, value[:n], 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	err = os.Rename(f.Name(), path)
	if errors.Is(err, syscall.EBUSY) {
		return os.WriteFile(path, data, info.Mode().Perm())
	}
	return err
}

// nameStations does the part of `up` that gives the machine the stations' names.
func nameStations(l Layout, t *topology.Topology, asked bool, tell func(Progress)) error {
	o := outside{l}
	if !asked && !o.named(t.Name) {
		return nil
	}
	state, err := readState(l, t.Name)
	if err != nil {
		return err
	}
	var routes []netip.Prefix
	if state.Uplink != nil {
		routes = state.Uplink.Routes
	}
	notices, err := o.name(t, routes, asked)
	for _, n := range append(notices, o.resolve(t, state.Uplink)...) {
		tell(Progress{Notice: n})
	}
	return err
}
