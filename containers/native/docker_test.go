package native

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"platelayer/containers"
)

var update = flag.Bool("update", false, "write the table of docs/security.md")

// probed is what testdata/confined tells.
type probed map[string]map[string]string

// confined runs the probe in a container: a root of the probe alone, or the
// machine's.
func confined(t *testing.T, host bool) probed {
	t.Helper()
	r := newRig(t)
	root := t.TempDir()
	must(t, os.Chmod(root, 0o755))
	must(t, os.Mkdir(filepath.Join(root, "tmp"), 0o755))
	cmd := exec.Command("go", "build", "-o", filepath.Join(root, "confined"), "./testdata/confined")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := r.spec(root, "")
	s.Args, s.NetNSPath = []string{"/confined"}, netNS(t)
	if host {
		s.Root = containers.Root{Host: true}
		s.Mounts = []containers.Mount{{Source: filepath.Join(root, "confined"), Target: "/confined", ReadOnly: true}}
	}
	for _, name := range []string{"mnt", "pid", "net", "uts", "ipc", "cgroup", "user", "time"} {
		own, err := os.Readlink("/proc/self/ns/" + name)
		must(t, err)
		s.Args = append(s.Args, own)
	}
	out, _ := r.run(s)
	var p probed
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return p
}

// docker is testdata/docker.json, which ci/docker-probe writes.
type docker struct {
	Version, Command string
	Probe            probed
}

func readDocker(t *testing.T) docker {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the probe's numbers are amd64's")
	}
	b, err := os.ReadFile("testdata/docker.json")
	must(t, err)
	var d docker
	must(t, json.Unmarshal(b, &d))
	return d
}

// line compares one thing that the probe tells.
type line struct{ topic, name, docker, ours, verdict string }

const (
	equal    = "equal"
	stricter = "stricter"
	weaker   = "WEAKER"
	later    = "as later Docker"
)

// TestAgainstDocker compares what a program may do in a container with what it
// may do in one of Debian's docker.io, and with -update writes the table of
// docs/security.md.
func TestAgainstDocker(t *testing.T) {
	d := readDocker(t)
	allowed := dockerAllows(t)
	for _, host := range []bool{false, true} {
		lines := compareProbes(d.Probe, confined(t, host), allowed)
		if len(lines) < 400 {
			t.Fatalf("host root %v: the probe tells only %d things", host, len(lines))
		}
		for _, l := range lines {
			if l.verdict == weaker {
				t.Errorf("host root %v: %s: %s: docker %q, ours %q", host, l.topic, l.name, l.docker, l.ours)
			}
		}
		if !host {
			checkTable(t, d, lines)
		}
	}
}

// TestAgainstDockerFinds tells that the comparison finds what is weaker.
func TestAgainstDockerFinds(t *testing.T) {
	d := readDocker(t)
	allowed := dockerAllows(t)
	for _, l := range compareProbes(d.Probe, d.Probe, allowed) {
		if l.verdict != equal {
			t.Errorf("docker against itself: %+v", l)
		}
	}
	for name, change := range map[string][3]string{
		"capability":  {"capabilities", "CapBnd", "00000000a82425fb"},
		"privileges":  {"process", "NoNewPrivs", "-1"},
		"filter":      {"process", "Seccomp", "0"},
		"memory":      {"process", "oom_score_adj", "-500"},
		"namespace":   {"namespaces", "pid", "the machine's"},
		"mask":        {"paths", "/proc/kcore", "read"},
		"writable":    {"paths", "/proc/sys/kernel/core_pattern", "written"},
		"socket":      {"paths", "/run/docker.sock", "written"},
		"device":      {"devices", "/dev/sda", "8:0 60660"},
		"mode":        {"devices", "/dev/full", "1:7 20777"},
		"mount":       {"mounts", "/proc/sys", "proc nodev,noexec,nosuid,relatime,rw"},
		"propagation": {"mounts", "/dev", "tmpfs nosuid,rw shared"},
		"new mount":   {"mounts", "/host", "ext4 relatime,rw"},
		"setting":     {"settings", "/proc/sys/vm/swappiness", "written"},
		"call":        {"calls", "165", "errno 14"},
		"deed":        {"deeds", "unshare: user", "done"},
	} {
		worse := probed{}
		for topic, lines := range d.Probe {
			worse[topic] = map[string]string{}
			for k, v := range lines {
				worse[topic][k] = v
			}
		}
		worse[change[0]][change[1]] = change[2]
		if !slices.ContainsFunc(compareProbes(d.Probe, worse, allowed), func(l line) bool { return l.verdict == weaker }) {
			t.Errorf("%s: not found", name)
		}
	}
}

// dockerAllows are the numbers of the calls that Docker's present profile
// allows with Docker's own capabilities, whatever their arguments.
func dockerAllows(t *testing.T) map[string]bool {
	t.Helper()
	profile, err := defaultProfile(defaultCaps | 1<<27) // MKNOD
	must(t, err)
	numbers := callNumbers()
	allowed := map[string]bool{}
	for _, call := range profile.Syscalls {
		for _, name := range call.Names {
			if n, ok := numbers[name]; ok && call.Action == specs.ActAllow && len(call.Args) == 0 {
				allowed[n] = true
			}
		}
	}
	return allowed
}

func callNumbers() map[string]string {
	numbers := map[string]string{}
	fields := strings.Fields(syscallNumbers)
	for i := 0; i+1 < len(fields); i += 2 {
		numbers[fields[i]] = fields[i+1]
	}
	return numbers
}

// laterCalls are those that Docker has allowed since the version of the golden
// file: harmless ones (protection keys, Landlock, extended attributes by folder, futexes, sealing), those
// that tell what /proc tells too, and process_vm_readv and process_vm_writev,
// which ask for the same right as ptrace, which that version allows.
var laterCalls = []string{"name_to_handle_at", "process_vm_readv", "process_vm_writev", "pkey_mprotect", "pkey_alloc", "pkey_free",
	"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "cachestat", "fchmodat2", "map_shadow_stack",
	"futex_wake", "futex_wait", "futex_requeue", "statmount", "listmount", "mseal",
	"setxattrat", "getxattrat", "listxattrat", "removexattrat"}

func compareProbes(docker, ours probed, allowed map[string]bool) []line {
	laterNumbers := map[string]bool{}
	numbers := callNumbers()
	for _, name := range laterCalls {
		laterNumbers[numbers[name]] = allowed[numbers[name]]
	}
	var lines []line
	for _, topic := range []string{"capabilities", "process", "namespaces", "paths", "devices", "mounts", "settings", "deeds", "calls"} {
		names := map[string]bool{}
		for _, p := range []probed{docker, ours} {
			for name := range p[topic] {
				names[name] = true
			}
		}
		for name := range names {
			l := line{topic: topic, name: name, docker: docker[topic][name], ours: ours[topic][name]}
			l.verdict = judge(&l)
			n := name
			if name == "process_vm_readv" {
				n = numbers[name]
			}
			if l.verdict == weaker && (topic == "calls" || topic == "deeds") && laterNumbers[n] {
				l.verdict = later
			}
			lines = append(lines, l)
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		if a.topic != b.topic {
			return 0
		}
		x, errX := strconv.Atoi(a.name)
		y, errY := strconv.Atoi(b.name)
		if errX == nil && errY == nil {
			return x - y
		}
		return strings.Compare(a.name, b.name)
	})
	return lines
}

// judge compares by how much each allows: less is stricter.
func judge(l *line) string {
	rank := func(docker, ours int) string {
		switch {
		case ours > docker:
			return weaker
		case ours < docker:
			return stricter
		}
		return equal
	}
	switch l.topic {
	case "capabilities":
		d, errD := strconv.ParseUint(l.docker, 16, 64)
		o, errO := strconv.ParseUint(l.ours, 16, 64)
		if errD != nil || errO != nil || o&^d != 0 {
			return weaker
		}
		return rank(0, -int(d&^o))
	case "process":
		return judgeProcess(l, rank)
	case "namespaces":
		return rank(allows(l.docker == "the machine's"), allows(l.ours == "the machine's"))
	case "paths":
		return judgePath(l, rank)
	case "devices":
		if strings.HasPrefix(l.ours, "->") || l.ours == "" {
			return equal // links lead nowhere new
		}
		return rank(0, allows(l.ours != l.docker))
	case "mounts":
		return judgeMount(l)
	case "settings":
		return rank(allows(l.docker != ""), allows(l.ours != ""))
	}
	return rank(allows(!refused(l.docker)), allows(!refused(l.ours)))
}

func allows(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// refused are the answers of a filter, of a lacking right, of a read-only mount
// (EROFS) and of a lacking file (ENOENT).
func refused(answer string) bool {
	return slices.Contains([]string{"EPERM", "ENOSYS", "EACCES", "errno 30", "errno 2"}, answer)
}

func judgeProcess(l *line, rank func(int, int) string) string {
	d, errD := strconv.Atoi(l.docker)
	o, errO := strconv.Atoi(l.ours)
	switch l.name {
	case "NoNewPrivs", "Seccomp", "oom_score_adj", "Umask":
		if errD != nil || errO != nil {
			return weaker
		}
		return rank(-d, -o)
	case "cgroup":
		return rank(allows(l.docker != "its own root"), allows(l.ours != "its own root"))
	}
	return rank(0, allows(l.docker != l.ours))
}

// Docker's lists, of paths that the machine of the golden file may lack.
func judgePath(l *line, rank func(int, int) string) string {
	order := map[string]int{"absent": 0, "hidden": 0, "refused": 0, "read": 1, "written": 2}
	o, known := order[l.ours]
	if !known {
		return weaker
	}
	d := order[l.docker]
	masked := slices.Contains(append(append(append([]string(nil), maskedProcFiles...), maskedProcDirs...), maskedSysDirs...), l.name) ||
		strings.HasSuffix(l.name, "/thermal_throttle")
	if l.docker == "absent" && !masked && (strings.HasPrefix(l.name, "/proc/") || strings.HasPrefix(l.name, "/sys/")) {
		d = max(0, min(o, 1)) // never written
	}
	return rank(d, o)
}

// judgeMount wants docker's protections of a place; where docker mounts nothing,
// a mount of ours must be a mask, or without devices.
func judgeMount(l *line) string {
	options := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' })
	}
	ours, docker := options(l.ours), options(l.docker)
	verdict := equal
	switch {
	case l.ours == "":
		return equal
	case slices.Contains(ours, "shared") && !slices.Contains(docker, "shared"):
		return weaker
	case l.docker == "":
		if slices.Contains(ours, "ro") || slices.Contains(ours, "nodev") {
			return equal
		}
		return weaker
	}
	for _, o := range []string{"ro", "nosuid", "nodev", "noexec"} {
		has, had := slices.Contains(ours, o), slices.Contains(docker, o)
		switch {
		case had && !has:
			return weaker
		case has && !had:
			verdict = stricter
		}
	}
	return verdict
}

const tableMark = "<!-- The table: go test ./containers/native -run TestAgainstDocker -update -->\n"

// checkTable holds the table to the golden file: what Docker does is told in
// it, and nothing as weaker.
func checkTable(t *testing.T, d docker, lines []line) {
	t.Helper()
	const doc = "../../docs/security.md"
	b, err := os.ReadFile(doc)
	must(t, err)
	before, after, ok := strings.Cut(string(b), tableMark)
	if !ok {
		t.Fatalf("%s has no table", doc)
	}
	table := tableOf(d, lines)
	if *update {
		must(t, os.WriteFile(doc, []byte(before+tableMark+table), 0o644))
		return
	}
	told := map[string]bool{}
	for row := range strings.Lines(after) {
		if cells := strings.Split(row, "|"); len(cells) == 6 {
			told[cells[1]+"|"+cells[2]] = true
			if strings.Contains(cells[4], weaker) {
				t.Errorf("%s: %s", doc, row)
			}
		}
	}
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		// What only this machine has is in no other's table.
		if len(cells) == 6 && strings.TrimSpace(cells[2]) != "-" && !strings.Contains(cells[1], "system calls") && !told[cells[1]+"|"+cells[2]] {
			t.Errorf("%s lacks the row %s", doc, row)
		}
	}
}

func tableOf(d docker, lines []line) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nDocker: %s, `%s`.\n\n| | Docker | a station | |\n|---|---|---|---|\n", d.Version, d.Command)
	cell := func(s string) string {
		if s == "" {
			return "-"
		}
		return strings.NewReplacer("|", "\\|", "\t", " ").Replace(s)
	}
	names := map[string]string{}
	for name, n := range callNumbers() {
		names[n] = name
	}
	var same, both, few, more []string
	for _, l := range lines {
		if l.topic != "calls" {
			if strings.HasPrefix(l.docker, "/docker-probe-") {
				l.docker = "the machine's path of it"
			}
			fmt.Fprintf(&b, "| %s: %s | %s | %s | %s |\n", l.topic, l.name, cell(l.docker), cell(l.ours), l.verdict)
			continue
		}
		name := names[l.name]
		if name == "" {
			name = l.name
		}
		switch {
		case l.verdict == stricter:
			few = append(few, name)
		case l.verdict == later:
			more = append(more, name)
		case refused(l.ours):
			both = append(both, name)
		default:
			same = append(same, name)
		}
	}
	fmt.Fprintf(&b, "| system calls that both take | %d | %d | %s |\n", len(same), len(same), equal)
	fmt.Fprintf(&b, "| system calls that both refuse | %d | %d | %s |\n", len(both), len(both), equal)
	fmt.Fprintf(&b, "| system calls: %s | taken | refused | %s |\n", strings.Join(few, ", "), stricter)
	fmt.Fprintf(&b, "| system calls: %s | refused | taken | %s |\n", strings.Join(more, ", "), later)
	return b.String()
}
