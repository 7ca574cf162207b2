package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// lacks are kernels that do without something, by how their system calls fail.
// ci/kernel61-poor.sh has what modules can be missing there.
var lacks = []struct {
	name, file string
	fails      func(*trappedCall) syscall.Errno
	says       string // with exit code 6; "" is success
	absent     string // what doctor says
}{
	{"network namespaces", lacksFile("none", "", ""), noNamespaces, "does not support network namespaces", "MISSING  network namespaces"},
	{"settings", lacksFile("none", "", ""), noSettings, "does not support writing to /proc/sys/net", "MISSING  network settings"},
	{"overlays", lacksFile("none", "", ""), noOverlays, "lacks the file system overlay", "ok       network namespaces"},
	{"policy routing", lacksFile("none", "", ""), noPolicyRouting, "", "absent   policy routing"},
	{"policy routing with a gateway", lacksFile("none", "gateway: three", ""), noPolicyRouting, "does not support policy routing", "absent   policy routing"},
	{"netfilter", lacksFile("none", "", ""), noNetfilter, "", "absent   nftables"},
	{"netfilter with egress", lacksFile("allow", "", ""), noNetfilter, "does not support transparent proxying", "absent   transparent proxying"},
	{"netfilter with ports", lacksFile("none", "", `ports: ["80"]`), noNetfilter, "does not support transparent proxying", "absent   transparent proxying"},
	{"netfilter with isolation", lacksFile("none", "isolated: true", ""), noNetfilter, "does not support nftables", "absent   nftables"},
	{"netfilter with routes", lacksFile("none, host_routes: true", "", ""), noNetfilter, "does not support connection tracking", "absent   connection tracking"},
	{"packet sockets", lacksFile("none", "", ""), noPacketSockets, "", "absent   packet sockets"},
	{"packet sockets with egress", lacksFile("allow", "", ""), noPacketSockets, "does not support packet sockets", "absent   packet sockets"},
	{"packet sockets with ports", lacksFile("none", "", `ports: ["80"]`), noPacketSockets, "does not support packet sockets", "absent   packet sockets"},
	{"ping sockets", lacksFile("allow", "", ""), noPingSockets, "", "absent   ping sockets"},
}

// lacksFile is a topology with more keys of the first cluster and its station.
func lacksFile(egress, cluster, station string) string {
	if cluster != "" {
		cluster += ", "
	}
	return "backbone: {egress: " + egress + "}\nclusters:\n  a: {" + cluster + "subnet: 10.205.1.0/24, stations: {one: {" + station + "}, three: }}\n" +
		"  b: {subnet: 10.205.2.0/24, stations: {two: }}\n"
}

// TestLacks brings a topology up on kernels that lack a feature: it comes up
// where it can do without, else the error names the feature and nothing is left.
// `doctor` says so beforehand.
func TestLacks(t *testing.T) {
	needsRoot(t)
	program := build(t)
	for _, l := range lacks {
		t.Run(l.name, func(t *testing.T) {
			k := newPoorMachine(t, program, l.fails)
			if out, _ := k.run("doctor"); !strings.Contains(out, l.absent) {
				t.Errorf("doctor does not say %q:\n%s", l.absent, out)
			}
			out, code := k.up(l.file)
			if l.says != "" {
				if code != 6 || !strings.Contains(out, l.says) || !strings.Contains(out, "hint: ") {
					t.Errorf("up ended with %d, want 6 and %q:\n%s", code, l.says, out)
				}
				if left := leftOf(t, k.name, k.root); left != "" {
					t.Errorf("left on the machine: %s", left)
				}
				return
			}
			if code != 0 {
				t.Fatalf("up ended with %d:\n%s", code, out)
			}
			k.meet()
		})
	}
}

// TestNamespaceLimit: the limit of namespaces is named when a station's is over it.
func TestNamespaceLimit(t *testing.T) {
	needsRoot(t)
	made := 0
	k := newPoorMachine(t, build(t), func(c *trappedCall) syscall.Errno {
		if c.nr == unix.SYS_UNSHARE && c.args[0]&unix.CLONE_NEWNET != 0 {
			made++
		}
		return when(made > 2 && c.nr == unix.SYS_UNSHARE, unix.ENOSPC)
	})
	if out, code := k.up(lacksFile("none", "", "")); code != 1 || !strings.Contains(out, "user.max_net_namespaces") {
		t.Errorf("up ended with %d, want 1:\n%s", code, out)
	}
	if left := leftOf(t, k.name, k.root); left != "" {
		t.Errorf("left on the machine: %s", left)
	}
}

// TestLacksOnEdit edits a topology that does without nftables: what needs them is
// refused before anything that runs is touched.
func TestLacksOnEdit(t *testing.T) {
	needsRoot(t)
	k := newPoorMachine(t, build(t), noNetfilter)
	if out, code := k.up(lacksFile("none", "", "")); code != 0 {
		t.Fatalf("up ended with %d:\n%s", code, out)
	}
	before, _ := k.run("ps", "-n", k.name, "--json")
	for _, edit := range []string{
		lacksFile("allow", "", "environment: {A: b}"),
		lacksFile("none", "isolated: true", "environment: {A: b}"),
		lacksFile("none", "", `environment: {A: b}, ports: ["80"]`),
	} {
		if out, code := k.up(edit); code != 6 || !strings.Contains(out, "by nftables") && !strings.Contains(out, "support nftables") {
			t.Errorf("up ended with %d, want 6:\n%s%s", code, edit, out)
		}
		if after, _ := k.run("ps", "-n", k.name, "--json"); pidsIn(after) != pidsIn(before) || pidsIn(after) == "" {
			t.Errorf("it was\n%s and is\n%s", before, after)
		}
		k.meet()
	}
}

// pidsIn are the lines of ps --json that tell processes.
func pidsIn(list string) string {
	return strings.Join(regexp.MustCompile(`"(name|pid)": .*`).FindAllString(list, -1), "\n")
}

// poorMachine has commands below a filter that fails what its kernel lacks.
type poorMachine struct {
	t                        *testing.T
	program, dir, root, name string
	fails                    func(*trappedCall) syscall.Errno
}

func newPoorMachine(t *testing.T, program string, fails func(*trappedCall) syscall.Errno) *poorMachine {
	k := &poorMachine{t: t, program: program, dir: t.TempDir(), name: fmt.Sprintf("t%d-lacks", os.Getpid()), fails: fails}
	k.root = filepath.Join(k.dir, "state")
	t.Cleanup(func() { downAll(t, program, k.root) })
	return k
}

func (k *poorMachine) run(args ...string) (string, int) {
	k.t.Helper()
	c := exec.Command(k.program, append([]string{"--root", k.root}, args...)...)
	c.Dir = k.dir
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if _, err := startTrapped(c, k.fails); err != nil {
		k.t.Fatal(err)
	}
	err := c.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		k.t.Fatal(err)
	}
	return out.String(), c.ProcessState.ExitCode()
}

func (k *poorMachine) up(file string) (string, int) {
	k.t.Helper()
	if err := os.WriteFile(filepath.Join(k.dir, "platelayer.yaml"), []byte(file), 0o644); err != nil {
		k.t.Fatal(err)
	}
	return k.run("up", "-n", k.name)
}

// meet has one station reach that of the other cluster, by name.
func (k *poorMachine) meet() {
	k.t.Helper()
	if out, code := k.run("exec", "-n", k.name, "one", "fetch", "-timeout", "5s", "http://two/"); code != 0 {
		k.t.Errorf("one does not reach two: %s", out)
	}
}

func when(fails bool, errno syscall.Errno) syscall.Errno {
	if fails {
		return errno
	}
	return 0
}

// noSocket is a kernel without a family of sockets, or a protocol of one.
func noSocket(c *trappedCall, family, protocol int, errno syscall.Errno) syscall.Errno {
	return when(c.nr == unix.SYS_SOCKET && int(c.args[0]) == family && (protocol < 0 || int(c.args[2]) == protocol), errno)
}

func noNetfilter(c *trappedCall) syscall.Errno {
	return noSocket(c, unix.AF_NETLINK, unix.NETLINK_NETFILTER, unix.EPROTONOSUPPORT)
}

func noPacketSockets(c *trappedCall) syscall.Errno {
	return noSocket(c, unix.AF_PACKET, -1, unix.EAFNOSUPPORT)
}

func noPingSockets(c *trappedCall) syscall.Errno {
	return noSocket(c, unix.AF_INET, unix.IPPROTO_ICMP, unix.EPROTONOSUPPORT)
}

func noNamespaces(c *trappedCall) syscall.Errno {
	return when(c.nr == unix.SYS_UNSHARE && c.args[0]&unix.CLONE_NEWNET != 0, unix.EINVAL)
}

func noSettings(c *trappedCall) syscall.Errno {
	return when(c.nr == unix.SYS_OPENAT && c.args[2]&unix.O_ACCMODE != 0 && strings.HasPrefix(c.file(0), "/proc/sys/net"), unix.EROFS)
}

func noOverlays(c *trappedCall) syscall.Errno {
	return when(c.nr == unix.SYS_FSOPEN && c.text(0) == "overlay", unix.ENODEV)
}

// noPolicyRouting fails the message that asks for a rule, as the kernel would the
// request.
func noPolicyRouting(c *trappedCall) syscall.Errno {
	if c.nr != unix.SYS_SENDTO {
		return 0
	}
	header := make([]byte, unix.NLMSG_HDRLEN)
	_, err := unix.ProcessVMReadv(int(c.tid), []unix.Iovec{{Base: &header[0], Len: uint64(len(header))}},
		[]unix.RemoteIovec{{Base: uintptr(c.args[1]), Len: len(header)}}, 0)
	return when(err == nil && binary.NativeEndian.Uint16(header[4:]) == unix.RTM_NEWRULE && uint64(binary.NativeEndian.Uint32(header)) <= c.args[2], unix.EOPNOTSUPP)
}
