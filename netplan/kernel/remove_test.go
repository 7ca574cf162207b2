package kernel

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"platelayer/netplan"
)

// childLab names the lab that a re-executed test binary applies.
const childLab = "PLATELAYER_TEST_APPLY"

func TestMain(m *testing.M) {
	if name := os.Getenv(childLab); name != "" {
		p, err := netplan.Build(sample(name))
		if err == nil {
			err = Apply(context.Background(), p, optionsFor(name))
		}
		if err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	_ = os.Remove("/run/platelayer-test") // unless another run is at work in it
	os.Exit(code)
}

// traces are what on this machine tells of a lab: mounts, names, folders and
// links.
func traces(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, name) {
			found = append(found, line)
		}
	}
	for _, dir := range []string{"/run/netns", "/run/platelayer-test"} {
		names, err := filepath.Glob(filepath.Join(dir, name+"*"))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, names...)
	}
	return found
}

func linkNames(t *testing.T) string {
	t.Helper()
	fs, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range fs {
		names = append(names, f.Name)
	}
	return strings.Join(names, " ")
}

func TestRemoveAfterKill(t *testing.T) {
	needRoot(t)
	before := linkNames(t)
	name := labName("kill")
	t.Cleanup(func() { _ = Remove(optionsFor(name)) })
	partial := 0
	for range 20 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childLab+"="+name)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(30_000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if left := traces(t, name); len(left) > 0 {
			partial++
		}
		if err := Remove(optionsFor(name)); err != nil {
			t.Fatal(err)
		}
		if left := traces(t, name); len(left) > 0 {
			t.Fatalf("left: %q", left)
		}
		if after := linkNames(t); after != before {
			t.Fatalf("links were %s, are %s", before, after)
		}
	}
	t.Logf("%d of 20 were killed with something made", partial)
	// And the name is free again.
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childLab+"="+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestRemoveTwiceAndOfNothing(t *testing.T) {
	l := up(t, "twice")
	if err := Apply(context.Background(), l.plan, l.options); err == nil {
		t.Error("a second Apply over the first succeeded")
	}
	l.in("app.b", func() error { return nil }) // the first is untouched
	for range 2 {
		if err := Remove(l.options); err != nil {
			t.Fatal(err)
		}
	}
	if left := traces(t, l.plan.Topology); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
}

func TestForeignNameStays(t *testing.T) {
	needRoot(t)
	name := labName("taken")
	o := optionsFor(name)
	o.NetNSDir = t.TempDir()
	foreign := filepath.Join(o.NetNSDir, name+".app.b")
	if err := os.WriteFile(foreign, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := netplan.Build(sample(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = Remove(o) })
	var taken *Taken
	if err := Apply(context.Background(), p, o); !errors.As(err, &taken) || taken.Name != foreign {
		t.Errorf("Apply said %v", err)
	}
	if err := Remove(o); err != nil {
		t.Error(err)
	}
	if raw, err := os.ReadFile(foreign); err != nil || string(raw) != "theirs" {
		t.Errorf("the foreign file is %q, %v", raw, err)
	}
}

func TestErrorNamesOperationAndStation(t *testing.T) {
	needRoot(t)
	name := labName("wrong")
	o := optionsFor(name)
	p, err := netplan.Build(sample(name))
	if err != nil {
		t.Fatal(err)
	}
	n := &p.Nodes[len(p.Nodes)-1]
	n.Routes[0].Via = addrs("198.51.100.77")[0]
	t.Cleanup(func() { _ = Remove(o) })
	err = Apply(context.Background(), p, o)
	if err == nil || !strings.Contains(err.Error(), "cannot add route default via 198.51.100.77 dev eth0 in "+n.NetNS) {
		t.Errorf("Apply said %v", err)
	}
}

func TestProbe(t *testing.T) {
	before := linkNames(t)
	features := Probe()
	if len(features) == 0 {
		t.Error("nothing probed")
	}
	for _, f := range features {
		t.Logf("%+v", f)
		if os.Geteuid() == 0 && f.Required && !f.OK {
			t.Errorf("%s: %s", f.Name, f.Detail)
		}
		if !f.OK && f.Remedy == "" {
			t.Errorf("%s has no remedy", f.Name)
		}
	}
	if after := linkNames(t); after != before {
		t.Errorf("links were %s, are %s", before, after)
	}
}
