package topology

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const defaultGracePeriod = 10 * time.Second

// station reads what a station says about itself. What refers to others
// (addresses, interfaces, depends_on, aliases) comes later.
func (l *loader) station(s *stationDraft) {
	n, out := s.body, &s.out
	l.rootfs(s)
	l.image(s)
	out.Egress = l.egress(n)
	out.Writable = "disk"
	if w := n.get("writable"); w != nil {
		out.Writable = w.text
	}
	out.Entrypoint = l.words(n.get("entrypoint"))
	out.Command = l.words(n.get("command"))
	if out.Rootfs != "" && len(out.Entrypoint)+len(out.Command) == 0 && !n.spoiled("rootfs", "entrypoint", "command") {
		l.report(s.at, "a root of the machine's comes without a command", "add command: [PROGRAM, ARGUMENT, ...]")
	}
	out.Environment = l.environmentOf(s)
	out.Hostname = out.Name
	if h := n.get("hostname"); h != nil {
		out.Hostname = h.text
		if !validDNSName(h.text) || len(h.text) > 64 {
			l.spoil(h, fmt.Sprintf("%s is not a host name", quoted(h.text)), "letters, digits, - and dots, at most 64")
		}
	}
	if w := n.get("working_dir"); w != nil {
		if out.WorkingDir = path.Clean(w.text); !path.IsAbs(w.text) {
			l.spoil(w, fmt.Sprintf("%s is not an absolute path", quoted(w.text)), "a path in the station starts with /")
		}
	}
	if u := n.get("user"); u != nil {
		out.User = u.text
		user, group, both := strings.Cut(u.text, ":")
		if user == "" || both && group == "" || strings.ContainsAny(u.text, " \t\n/") || strings.Contains(group, ":") {
			l.spoil(u, fmt.Sprintf("%s is not a user", quoted(u.text)), "write user or user:group, as names or numbers")
		} else if tooLargeID(user) || tooLargeID(group) {
			l.spoil(u, fmt.Sprintf("%s is not a user: the number is too large", quoted(u.text)), largestID)
		}
	}
	l.process(s)
	l.volumes(s)
	l.tmpfs(s)
	l.files(s)
	l.security(s)
	l.startup(s)
	l.tls(s)
	out.Healthcheck = l.healthcheck(n.get("healthcheck"), out.Image != "")
	out.Restart = l.restart(n.get("restart"))
	l.stopping(s)
	l.resources(s)
	l.integrity(s)
	out.Logging = l.logging(n.get("logging"))
	out.Profiles = l.profiles(n.get("profiles"))
	out.Labels = l.labels(n.get("labels"))
	s.routes = l.routesOf(n)
	l.loopback(s)
	l.resolving(s)
	l.ports(s)
}

const largestID = "numbers of users and groups go up to 2147483647"

// tooLargeID tells whether a word is a number that no user or group can have,
// as docker takes them.
func tooLargeID(word string) bool {
	if word == "" || strings.Trim(word, "0123456789") != "" {
		return false
	}
	_, err := strconv.ParseInt(word, 10, 32)
	return err != nil
}

// startup reads the command that comes before the station's own; an empty
// one takes back what a merge key brought.
func (l *loader) startup(s *stationDraft) {
	n := s.body.get("startup")
	words := l.words(n)
	if len(words) == 0 {
		return
	}
	if words[0] == "" {
		l.spoil(n, "the startup command's program is empty", "write startup: [PROGRAM, ARGUMENT, ...]")
	}
	s.out.Startup = words
}

func (l *loader) rootfs(s *stationDraft) {
	n := s.body.get("rootfs")
	switch {
	case n == nil:
	case n.text == "host":
		s.out.Rootfs = "host"
	case n.text == "":
		l.spoil(n, "rootfs is empty", "write host or a folder, or remove it for an image")
	default:
		s.out.Rootfs, _ = l.machinePath(n, n.text)
	}
}

// machinePath makes a path of the machine's absolute, from the file's folder.
func (l *loader) machinePath(n *node, p string) (string, bool) {
	if p == "~" || strings.HasPrefix(p, "~/") {
		home, ok := "", false
		if l.opt.LookupEnv != nil {
			home, ok = l.opt.LookupEnv("HOME")
		}
		if !ok || !filepath.IsAbs(home) {
			l.spoil(n, "~ stands for your home, but HOME is not set", "write the whole path")
			return "", false
		}
		return filepath.Join(home, p[1:]), true
	}
	if strings.HasPrefix(p, "~") {
		l.spoil(n, fmt.Sprintf("%s: only your own home can be written with ~", quoted(p)), "write the whole path")
		return "", false
	}
	if filepath.IsAbs(p) {
		return filepath.Clean(p), true
	}
	return filepath.Join(l.folderOf(n), p), true
}

// absolute reads a path inside the station: absolute and in its shortest
// form, so that one place has one name.
func (l *loader) absolute(n *node) (string, bool) {
	clean := path.Clean(n.text)
	switch {
	case !path.IsAbs(n.text):
		l.spoil(n, fmt.Sprintf("%s is not an absolute path", quoted(n.text)), "a path in the station starts with /")
	case clean != n.text:
		l.spoil(n, fmt.Sprintf("%s is not the shortest way to write the path", quoted(n.text)), "write "+clean)
	default:
		return clean, true
	}
	return "", false
}

func defaultStopSignal(s *Station) string {
	if s.Systemd {
		return "SIGRTMIN+3" // halt (systemd(1))
	}
	return "SIGTERM"
}

func (l *loader) stopping(s *stationDraft) {
	s.out.StopSignal = defaultStopSignal(&s.out)
	if s.out.Image != "" {
		s.out.StopSignal = ""
	}
	if n := s.body.get("stop_signal"); n != nil {
		name, ok := signalName(n.text)
		if !ok {
			l.spoil(n, fmt.Sprintf("%s is not a signal", quoted(n.text)), "write a name like SIGTERM or a number from 1 to 64")
		}
		s.out.StopSignal = name
	}
	s.out.StopGracePeriod = defaultGracePeriod
	if n := s.body.get("stop_grace_period"); n != nil {
		s.out.StopGracePeriod = l.duration(n, "0s kills at once")
	}
}

// process reads how the station's command is run.
func (l *loader) process(s *stationDraft) {
	out := &s.out
	out.TTY, out.StdinOpen = s.body.get("tty").isTrue(), s.body.get("stdin_open").isTrue()
	out.Init, out.ReadOnly = s.body.get("init").isTrue(), s.body.get("read_only").isTrue()
	l.systemd(s)
	for _, n := range s.body.get("group_add").good() {
		if n.text == "" || strings.ContainsAny(n.text, ": \t\n/,") {
			l.spoil(n, fmt.Sprintf("%s is not a group", quoted(n.text)), "write a name or a number")
			continue
		}
		if tooLargeID(n.text) {
			l.spoil(n, fmt.Sprintf("%s is not a group: the number is too large", quoted(n.text)), largestID)
			continue
		}
		if !slices.Contains(out.GroupAdd, n.text) {
			out.GroupAdd = append(out.GroupAdd, n.text)
		}
	}
}

// systemd reads whether the command is a system manager, which is process 1
// and root or does not run.
func (l *loader) systemd(s *stationDraft) {
	n := s.body.get("systemd")
	if s.out.Systemd = n.isTrue(); !s.out.Systemd {
		return
	}
	user, _, _ := strings.Cut(s.out.User, ":")
	for _, unfit := range []struct {
		key  string
		is   bool
		hint string
	}{
		{"init", s.out.Init, "remove init: a system manager reaps"},
		{"pid", strings.Contains(textOf(s.body.get("pid")), ":"), "remove pid: a system manager is process 1"},
		{"user", user != "" && user != "root" && user != "0", "remove user: a system manager is root, its units have users of their own"},
	} {
		if unfit.is {
			l.spoil(n, fmt.Sprintf("systemd and %s are both set", unfit.key), unfit.hint)
			return
		}
	}
}

func (l *loader) integrity(s *stationDraft) {
	seal, long := s.body.get("seal"), s.body.get("integrity")
	if seal != nil && long != nil {
		l.spoil(seal, "seal and integrity are both set", "seal is short for integrity: keep one of them")
		return
	}
	paths := seal
	if long != nil {
		paths = long.get("paths")
	}
	if paths == nil {
		return
	}
	if len(paths.items) == 0 {
		l.spoil(paths, "the list of sealed paths is empty", "list files or folders, or remove it")
		return
	}
	seen := map[string]bool{}
	for _, item := range paths.good() {
		p, ok := l.absolute(item)
		if !ok {
			continue
		}
		if seen[p] {
			l.spoil(item, fmt.Sprintf("%s is listed twice", p), "remove one")
			continue
		}
		seen[p] = true
		s.out.Integrity.Paths = append(s.out.Integrity.Paths, p)
	}
	s.out.Integrity.Manifest = filepath.Join(l.opt.Dir, "seals", s.out.Cluster, cmp.Or(s.out.Group, s.out.Name)+".sha256")
	if m := long.get("manifest"); m != nil {
		if m.text == "" {
			l.spoil(m, "manifest is empty", "name a file, or remove it for the default")
			return
		}
		s.out.Integrity.Manifest, _ = l.machinePath(m, m.text)
	}
}

// checkManifests reports stations that would write their checksums over each
// other's. Those of one group share theirs.
func (l *loader) checkManifests() {
	owner := map[string]*stationDraft{}
	for _, c := range l.clusters {
		for _, s := range c.stations {
			manifest := s.out.Integrity.Manifest
			if manifest == "" {
				continue
			}
			if first, taken := owner[manifest]; taken {
				if s.sameGroup(first) {
					continue
				}
				at := s.at
				if n := s.body.get("integrity").get("manifest"); n != nil {
					at = n.position
				}
				l.report(at, fmt.Sprintf("manifest %s is already that of station %s", manifest, first.out.ID()), "give each station its own")
				continue
			}
			owner[manifest] = s
		}
	}
}
