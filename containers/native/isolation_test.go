package native

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// TestInside looks at a container from inside: what it has, and what fails.
func TestInside(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	for _, tc := range []struct{ what, user, script, want string }{
		{"capabilities", "", "grep ^Cap /proc/self/status | tr -d '\\t'", ""},
		{"no new privileges", "", "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'", "NoNewPrivs:1\nSeccomp:2\n"},
		{"user's capabilities", "ann", "grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status | tr -d '\\t'; id", "CapPrm:0000000000000000\nCapEff:0000000000000000\nCapAmb:0000000000000000\nuid=1000(ann) gid=1000(ann) groups=50(staff)\n"},
		{"user and group", "ann:staff", "id -u; id -g; echo $HOME", "1000\n50\n/home/ann\n"},
		{"number", "1234:77", "id -u; id -g", "1234\n77\n"},
		{"files", "", "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 "}, // 3 is ls's own
		{"processes", "", "echo /proc/[0-9]*", "/proc/1\n"},
		{"cgroup", "", "cat /proc/self/cgroup | grep ^0:", "0::/\n"},
		{"own cgroup view", "", "cat /sys/fs/cgroup/cgroup.procs | head -1", "1\n"},
		{"ignored signals", "", "grep SigIgn /proc/self/status | tr -d '\\t'", "SigIgn:0000000000000000\n"},
		{"devices", "", "ls /dev | tr '\\n' ' '", "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "},
		{"null", "", "echo x >/dev/null && head -c 2 /dev/zero | od -An -tx1", " 00 00\n"},
		{"stderr again", "ann", "echo x >/dev/stderr", "x\n"},
		{"mount", "", "mount -t tmpfs none /tmp 2>/dev/null || echo no", "no\n"},
		{"unmount", "", "umount /proc/kcore 2>/dev/null || echo no", "no\n"},
		{"unshare", "", "unshare -m true 2>/dev/null || unshare -U true 2>/dev/null || unshare -n true 2>/dev/null || echo no", "no\n"},
		{"mknod", "", "mknod /tmp/d b 254 0 2>/dev/null || echo no", "no\n"},
		{"sysctl", "", "(echo 1 >/proc/sys/kernel/sysrq) 2>/dev/null || echo no", "no\n"},
		{"sysrq", "", "(echo h >/proc/sysrq-trigger) 2>/dev/null || echo no", "no\n"},
		{"sys", "", "(echo 0 >/sys/kernel/mm/ksm/run) 2>/dev/null; touch /sys/x 2>/dev/null || echo no", "no\n"},
		{"cgroup limits", "", "(echo 1 >/sys/fs/cgroup/cgroup.freeze) 2>/dev/null || echo no", "no\n"},
		{"masks", "", "head -c 1 /proc/kcore | wc -c; cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware /proc/acpi 2>/dev/null | grep -vc :", "0\n0\n"},
		{"limits of files", "", "grep 'open files' /proc/self/limits | tr -s ' ' | cut -d' ' -f4", "1024\n"},
		{"hosts", "", "cat /etc/hosts /etc/resolv.conf", "127.0.0.1 localhost\nnameserver 192.0.2.53\n"},
		{"environment", "", "env | grep -v -E '^(PWD|SHLVL|OLDPWD)' | sort", ""},
		{"mount count", "", "grep -c -E ' /(farm|work|mnt|old_root)' /proc/self/mountinfo", "0\n"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := r.spec(root, tc.script)
			s.User = tc.user
			out, _ := r.run(s)
			if tc.what == "capabilities" {
				if !sameCaps(out) {
					t.Errorf("got %q", out)
				}
				return
			}
			if tc.what == "environment" {
				t.Log(out)
				return
			}
			if out != tc.want && !(tc.what == "masks" && strings.HasPrefix(out, "0\n0\n")) {
				t.Errorf("got %q, want %q", out, tc.want)
			}
		})
	}
}

// sameCaps compares the sets in a status file with ours.
func sameCaps(status string) bool {
	const mask = defaultCaps
	const digits = "0123456789abcdef"
	hex := make([]byte, 16)
	for i := range hex {
		hex[15-i] = digits[mask>>(4*i)&15]
	}
	none := strings.Repeat("0", 16)
	return status == "CapInh:"+none+"\nCapPrm:"+string(hex)+"\nCapEff:"+string(hex)+"\nCapBnd:"+string(hex)+"\nCapAmb:"+none+"\n"
}

func TestNamespaces(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	out, _ := r.run(r.spec(root, "for n in mnt pid ipc uts cgroup; do echo $n $(readlink /proc/self/ns/$n); done"))
	for line := range strings.Lines(out) {
		name, inode, _ := strings.Cut(strings.TrimSpace(line), " ")
		own, err := os.Readlink("/proc/self/ns/" + name)
		must(t, err)
		if inode == own || inode == "" {
			t.Errorf("%s is the machine's", name)
		}
	}
	if strings.Count(out, "\n") != 5 {
		t.Errorf("got %q", out)
	}
}

// addProbe builds a static program into a root, or takes the one that
// PLATELAYER_PROBE names where there is no compiler.
func addProbe(t *testing.T, root string) {
	t.Helper()
	if built := os.Getenv("PLATELAYER_PROBE"); built != "" {
		program, err := os.ReadFile(built)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(root, "probe"), program, 0o755))
		return
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(root, "probe"), "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// netNS makes a network namespace pinned at a path, with lo up and the
// sysctls that the wiring sets.
func netNS(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "net")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, onThread(func(*thread) error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}))
	t.Cleanup(func() { must(t, unix.Unmount(path, unix.MNT_DETACH)) })
	out, err := exec.Command("nsenter", "--net="+path, "sh", "-c",
		"ip link set lo up; echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start; echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestNetwork(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	addProbe(t, root)
	s := r.spec(root, "readlink /proc/self/ns/net; /probe icmp; httpd -p 80 -h /data && echo port; ls /sys/class/net")
	s.User, s.NetNSPath = "ann", netNS(t)
	out, _ := r.run(s)
	if !strings.HasSuffix(out, "icmp: <nil>\nport\nlo\n") {
		t.Errorf("got %q", out)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	if strings.HasPrefix(out, own) {
		t.Error("it is the machine's network")
	}
}

func TestHostRootHides(t *testing.T) {
	r := newRig(t)
	s := r.spec("", "for f in /etc/ssl/private /etc/gshadow- /etc/shadow- /etc/machine-id; do test -e $f && echo $f; done; cat /etc/shadow | cut -d: -f2 | sort -u; ls /home /root /run /srv; echo x >/etc/new; rm -rf /etc/ssl; echo y >/usr/bin/zz; ls -ld /root | cut -c1-10; cat /etc/hosts")
	s.Root = containers.Root{Host: true}
	out, _ := r.run(s)
	if want := "*\n/home:\n\n/root:\n\n/run:\nlock\n\n/srv:\ndrwx------\n127.0.0.1 localhost\n"; out != want {
		t.Errorf("got %q\nwant %q", out, want)
	}
	for _, f := range []string{"/etc/new", "/usr/bin/zz"} {
		if _, err := os.Lstat(f); err == nil {
			t.Errorf("%s reached the machine", f)
		}
	}
	if _, err := os.Stat("/etc/ssl"); err != nil {
		t.Error(err)
	}
}

// TestChildIsClosed loops over /proc inside a container while other processes
// start there by exec, sharing this program's memory until they have begun.
func TestChildIsClosed(t *testing.T) {
	r := newRig(t)
	must(t, Harden())
	root := busyboxRoot(t)
	addProbe(t, root)
	s := r.spec(root, "")
	s.Args = []string{"/probe", "hunt"}
	c, err := r.engine.Prepare(context.Background(), s)
	must(t, err)
	out := drain(t, s.Stdout)
	p, err := c.Start(context.Background())
	must(t, err)
	for range 200 {
		e, err := Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: r.cgroup + "/" + s.Name, Args: []string{"/bin/true"}})
		must(t, err)
		_, err = e.Wait()
		must(t, err)
	}
	e, err := Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: r.cgroup + "/" + s.Name, Args: []string{"touch", "/tmp/stop"}})
	must(t, err)
	_, err = e.Wait()
	must(t, err)
	_, err = p.Wait()
	must(t, err)
	if got := out(); got != "seen true closed true\n" {
		t.Errorf("got %q", got)
	}
}

// canary is what a container tries to overwrite.
var canary = [16]byte{'u', 'n', 't', 'o', 'u', 'c', 'h', 'e', 'd'}

// TestTracedChild does the same where containers may trace: by that right they
// open the memory of all they see, so it must not be this program's, and no file
// of this program's may be open there.
func TestTracedChild(t *testing.T) {
	r := newRig(t)
	must(t, Harden())
	root := busyboxRoot(t)
	addProbe(t, root)
	before := canary
	s := r.spec(root, "")
	s.Args = []string{"/probe", "overwrite", fmt.Sprint(uintptr(unsafe.Pointer(&canary)))}
	s.CapAdd = []string{"SYS_PTRACE"}
	c, err := r.engine.Prepare(context.Background(), s)
	must(t, err)
	out := drain(t, s.Stdout)
	p, err := c.Start(context.Background())
	must(t, err)
	for range 40 {
		// Its own right, and that of another with which it shares processes.
		for _, x := range []*containers.ExecSpec{{CapAdd: s.CapAdd}, {SharedPIDs: true}} {
			x.Container, x.Cgroup, x.Args = p.Ref(), p.(*process).cgroup, []string{"/bin/true"}
			e, err := Exec(context.Background(), x)
			if err != nil {
				continue // what was overwritten was the newborn's own
			}
			_, err = e.Wait()
			must(t, err)
		}
		ref := p.Ref()
		joined := r.spec(root, "true")
		joined.PIDOf = &ref
		c, err := r.engine.Prepare(context.Background(), joined)
		must(t, err)
		if j, err := c.Start(context.Background()); err == nil {
			_, err = j.Wait()
			must(t, err)
		}
	}
	e, err := Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: p.(*process).cgroup, SharedPIDs: true, Args: []string{"touch", "/tmp/stop"}})
	must(t, err)
	_, err = e.Wait()
	must(t, err)
	_, err = p.Wait()
	must(t, err)
	if got := out(); got != "wrote true\n" {
		t.Errorf("got %q", got)
	}
	if canary != before {
		t.Errorf("this program's memory was overwritten: %q", canary)
	}
}
