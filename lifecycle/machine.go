package lifecycle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/topology"
)

// Wanting is what stations ask for and this machine has not: all of it, each
// with its place in the file, found before anything is made or changed.
type Wanting struct {
	Problems []WantingProblem
}

// WantingProblem is one thing that is not there.
type WantingProblem struct {
	Place   string // FILE:LINE:COLUMN
	Station string // "cluster/station"; "" for a thing of the topology's
	Err     error
}

func (e *Wanting) Error() string {
	lines := []string{"this machine has not what the file asks for:"}
	for _, p := range e.Problems {
		line := p.Err.Error()
		if p.Station != "" {
			line = fmt.Sprintf("station %q: %s", p.Station, line)
		}
		lines = append(lines, "  "+strings.ReplaceAll(strings.TrimPrefix(p.Place+": ", ": ")+line, "\n", "\n  "))
	}
	return strings.Join(lines, "\n")
}

func (e *Wanting) Unwrap() []error {
	var all []error
	for _, p := range e.Problems {
		all = append(all, p.Err)
	}
	return all
}

// checkMachine finds what stations need of the machine and what it does not
// have or allow: folders, files, devices, users, limits.
func checkMachine(l Layout, t *topology.Topology) error {
	found := new(Wanting)
	for _, v := range t.Volumes {
		if err := volumeWants(l, t, v); err != nil {
			found.Problems = append(found.Problems, WantingProblem{t.PlaceOf("volumes", v.Key), "", err})
		}
	}
	starts := starter(l, t.Name)
	for _, s := range t.Stations() {
		for _, err := range flat(stationWants(l, t, s, starts)) {
			place := t.Place(s.ID(), "", "")
			if unfit := new(containers.Impossible); errors.As(err, &unfit) {
				place = t.Place(s.ID(), unfit.Key, unfit.Value)
			}
			found.Problems = append(found.Problems, WantingProblem{place, s.ID(), err})
		}
	}
	if len(found.Problems) == 0 {
		return nil
	}
	return found
}

// volumeWants tells why a named volume can't be the topology's.
func volumeWants(l Layout, t *topology.Topology, v topology.NamedVolume) error {
	name := volumeName(t, v.Key)
	if v.External {
		if _, err := os.Stat(l.volume(name)); err != nil {
			return fmt.Errorf("there is no external volume %q: %w", v.Key, err)
		}
		return nil
	}
	// Topology a with volume b_c, and topology a_b with volume c: only a name
	// that the file itself gives shares one.
	owner, err := os.ReadFile(filepath.Join(l.volumes(), name, volumeOwner))
	if err == nil && v.Name == "" && len(owner) > 0 && string(owner) != t.Name {
		return fmt.Errorf("volume %q would be %q on the machine, which topology %q has made: it needs a name of its own (name:)", v.Key, name, owner)
	}
	return nil
}

// stationWants tells what one station asks for in vain.
func stationWants(l Layout, t *topology.Topology, s *topology.Station, starter containers.ProcessRef) error {
	var errs []error
	look := func(key, value, what, path string) {
		if _, err := os.Stat(path); err != nil {
			errs = append(errs, &containers.Impossible{Key: key, Value: value, Err: fmt.Errorf("cannot find the %s %s: %w", what, path, plainError(err))})
		}
	}
	if s.Rootfs != "" && s.Rootfs != "host" {
		look("rootfs", "", "root folder", s.Rootfs)
	}
	for _, v := range s.Volumes {
		if v.Source != "" && !v.CreateHostPath {
			look("volumes", v.Target, "volume's source", v.Source)
		}
		if err := checkSubpath(l, t, &v); err != nil {
			errs = append(errs, &containers.Impossible{Key: "volumes", Value: v.Target, Err: err})
		}
	}
	for _, f := range s.Files {
		if f.Source == "" {
			continue
		}
		if info, err := os.Stat(f.Source); err == nil && !info.Mode().IsRegular() {
			errs = append(errs, &containers.Impossible{Key: kindOf(f), Value: f.Target, Err: fmt.Errorf("config or secret %s is not a regular file", f.Source)})
		} else {
			look(kindOf(f), f.Target, "file of a config or secret", f.Source)
		}
	}
	spec := site{layout: l}.station(t, s)
	if err := readFilter(spec, s); err != nil {
		errs = append(errs, &containers.Impossible{Key: "security_opt", Value: "seccomp", Err: err})
	}
	return errors.Join(append(errs, native.Check(spec, starter), checkTargets(l, t, s, spec), checkUser(l, t, s), checkSysctls(s))...)
}

// checkSubpath looks for what is to be seen of a named volume, where no station
// fills that volume first.
func checkSubpath(l Layout, t *topology.Topology, v *topology.Volume) error {
	if v.Subpath == "" || v.Name == "" {
		return nil
	}
	dir := l.volume(volumeName(t, v.Name))
	if native.Holds(dir, v.Subpath) {
		return nil
	}
	f, err := os.Open(dir)
	if err == nil {
		_, err = f.Readdirnames(1)
		f.Close()
	}
	if err != nil { // it is empty or not there
		external := slices.ContainsFunc(t.Volumes, func(n topology.NamedVolume) bool { return n.Key == v.Name && n.External })
		fills := func(o topology.Volume) bool { return o.Name == v.Name && o.Subpath == "" && !o.NoCopy }
		filled := slices.ContainsFunc(t.Stations(), func(s *topology.Station) bool { return slices.ContainsFunc(s.Volumes, fills) })
		if filled || external && errors.Is(err, os.ErrNotExist) { // which is said already
			return nil
		}
	}
	return fmt.Errorf("cannot find the subpath %q in the volume %q: a volume without subpath must be mounted first, and the folder made in it", v.Subpath, v.Name)
}

// starter is the process that starts a topology's stations: its keeper, or,
// zero, one that the caller is going to start.
func starter(l Layout, name string) containers.ProcessRef {
	if state, err := readState(l, name); err == nil && native.Alive(state.Keeper) {
		return state.Keeper
	}
	return containers.ProcessRef{}
}

// kindOf is the key that a config or secret stands below.
func kindOf(f topology.File) string {
	if f.Secret {
		return "secrets"
	}
	return "configs"
}

// noteContents notes in a topology what its configs and secrets that are files
// and its system call filters hold now, so that an edit of one is a change of its stations. One that cannot
// be read is left without.
func noteContents(t *topology.Topology) {
	known := map[string]string{}
	for _, s := range t.Stations() {
		for i := range s.Files {
			source := s.Files[i].Source
			if source == "" {
				continue
			}
			if _, seen := known[source]; !seen {
				known[source] = ""
				if content, err := ReadSource(source); err == nil {
					sum := sha256.Sum256(content)
					known[source] = hex.EncodeToString(sum[:])
				}
			}
			s.Files[i].Digest = known[source]
		}
		if profile := s.Security.Seccomp; profile != "" && profile != "unconfined" {
			text, _ := ReadSource(profile)
			s.Security.Profile = string(text)
		}
	}
}

// checkUser looks the station's user up where its own passwd can be told
// before its root is there.
func checkUser(l Layout, t *topology.Topology, s *topology.Station) error {
	root := knownRoot(l, t, s)
	if root == "" || s.User == "" && len(s.GroupAdd) == 0 {
		return nil
	}
	covers := func(target string) bool {
		return slices.Contains([]string{"/etc", "/etc/passwd", "/etc/group"}, path.Clean(target))
	}
	if slices.ContainsFunc(s.Volumes, func(v topology.Volume) bool { return covers(v.Target) }) ||
		slices.ContainsFunc(s.Files, func(f topology.File) bool { return covers(f.Target) }) {
		return nil
	}
	return native.CheckUser(root, s.User, s.GroupAdd)
}

// checkSysctls looks for settings that the kernel does not have. What only the
// station's network has is left to it: names of devices, for which "default"
// stands, and nf_conntrack's, a module that making the network may load.
func checkSysctls(s *topology.Station) error {
	var errs []error
	for _, c := range s.Sysctls {
		parts := strings.Split(c.Name, ".")
		if len(parts) > 4 && parts[0] == "net" && (parts[2] == "conf" || parts[2] == "neigh") {
			parts = []string{"net", parts[1], parts[2], "default", parts[len(parts)-1]}
		}
		_, err := os.Stat("/proc/sys/" + strings.Join(parts, "/"))
		if errors.Is(err, os.ErrNotExist) && !strings.HasPrefix(c.Name, "net.netfilter.nf_conntrack_") {
			errs = append(errs, &containers.Impossible{Key: "sysctls", Value: c.Name, Err: fmt.Errorf("this machine's kernel has no setting %s", c.Name)})
		}
	}
	return errors.Join(errs...)
}

// plainError leaves the path out of what the operating system said.
func plainError(err error) error {
	if of := new(os.PathError); errors.As(err, &of) {
		return of.Err
	}
	return err
}

// flat lists what was joined.
func flat(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flat(e)...)
	}
	return all
}
