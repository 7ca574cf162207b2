package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"platelayer/netplan"
	"platelayer/topology"
)

func TestLent(t *testing.T) {
	mark := Options{Owner: strings.Repeat("n", 63), PinDir: "/x"}.mark()
	all := lent{}
	for i := range int32(8) {
		all[1<<30+i] = i%2 == 0
	}
	text := all.text(mark)
	if len(text) > 255 { // IFALIASZ less the closing zero
		t.Errorf("%d bytes", len(text))
	}
	if got := lentBy(text, mark); !maps.Equal(got, all) {
		t.Errorf("%v gives %v", text, got)
	}
	if l := (&link{alias: text}); !l.marked(mark) || l.marked(mark[:len(mark)-1]) || l.marked("") {
		t.Error("marked as another's, or not as ours")
	}
	for _, odd := range []string{mark, mark + " x", mark + " +", mark + " +-"} {
		if got := lentBy(odd, mark); len(got) > 0 {
			t.Errorf("%q gives %v", odd, got)
		}
	}
}

// interfaces makes two in this process's namespace, with names of the test's
// own, that are gone with it. Each is one end of a pair, whose other end is up:
// the two of one pair in one bridge would be a loop.
func interfaces(t *testing.T) (string, string) {
	var ends []string
	for _, which := range []string{"a", "b"} {
		near := fmt.Sprintf("plt%x%s", os.Getpid(), which)
		t.Cleanup(func() { _ = exec.Command("ip", "link", "del", near).Run() })
		shell(t, "ip link add "+near+" type veth peer name "+near+"x && ip link set "+near+"x up")
		ends = append(ends, near)
	}
	return ends[0], ends[1]
}

func shell(t *testing.T, line string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// TestAttach: an interface is taken, survives what a killed run leaves, and is
// given back as it was.
func TestAttach(t *testing.T) {
	a, b := interfaces(t)
	shell(t, "ip link set "+b+" up; ip link set "+a+" up; ip link set "+a+" down")
	before := shell(t, "ip -o link show dev "+a+"; ip -o link show dev "+b)
	attached := func(names ...string) func(string) *topology.Topology {
		return func(name string) *topology.Topology {
			top := sample(name)
			top.Clusters[1].Switch, top.Clusters[1].Attach = topology.SwitchHost, names
			return top
		}
	}
	l := up(t, "attach")
	name := l.plan.Topology
	ports := func() (n int) {
		for _, name := range []string{a, b} {
			n += strings.Count(shell(t, "ip -o link show dev "+name), ",UP,LOWER_UP> mtu 1500 qdisc noqueue master pl-")
		}
		return n
	}
	l.change(attached(a, b)(name))
	if ports() != 2 {
		t.Errorf("not both are attached: %s", shell(t, "ip link"))
	}
	if sent := l.converge(l.plan.NetNSNames()...); sent != 0 {
		t.Errorf("%d requests without a change", sent)
	}
	// As a run leaves it that was killed between the note and the taking.
	shell(t, "ip link set "+a+" nomaster down; ip link set "+b+" nomaster")
	if sent := l.converge(l.plan.NetNSNames()...); sent == 0 || ports() != 2 {
		t.Errorf("%d requests, and not both are attached", sent)
	}
	// The fabric is lost, and with it what led there.
	if err := unpin(l.options, l.plan.Fabric.NetNS); err != nil {
		t.Fatal(err)
	}
	l.repair()
	l.wantFresh(func(name string) *topology.Topology { return attached()(name) })
	if ports() != 2 {
		t.Error("not both are attached after a repair")
	}
	l.change(attached(b)(name))
	l.change(sample(name))
	if after := shell(t, "ip -o link show dev "+a+"; ip -o link show dev "+b); after != before {
		t.Errorf("given back:\n%sbefore:\n%s", after, before)
	}
	l.change(attached(a, b)(name))
	if err := Remove(l.options); err != nil {
		t.Fatal(err)
	}
	if after := shell(t, "ip -o link show dev "+a+"; ip -o link show dev "+b); after != before {
		t.Errorf("given back:\n%sbefore:\n%s", after, before)
	}
	if left := l.onMachine(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestAttachIsRefused before anything is made.
func TestAttachIsRefused(t *testing.T) {
	a, b := interfaces(t)
	shell(t, "ip address add 198.51.100.1/32 dev "+a)
	for name, why := range map[string]string{a: "has the address 198.51.100.1/32", "lo": "has the address 127.0.0.1/8", "nothing-there": "does not exist"} {
		top := sample("refused")
		top.Clusters[0].Switch, top.Clusters[0].Attach = topology.SwitchHost, []string{b, name}
		p, err := netplan.Build(top)
		if err != nil {
			t.Fatal(err)
		}
		o := optionsFor(fmt.Sprintf("t%d-refused", os.Getpid()))
		t.Cleanup(func() { _ = Remove(o) })
		refused := new(Unattachable)
		if err := Apply(context.Background(), p, o); !errors.As(err, &refused) || refused.Name != name || !strings.HasPrefix(refused.Why, why) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(shell(t, "ip -o link show dev "+b), "master") {
			t.Error("the other is attached")
		}
		if found, _ := filepath.Glob(filepath.Join(o.NetNSDir, "refused.*")); len(found) > 0 {
			t.Errorf("made: %q", found)
		}
		if err := Remove(o); err != nil {
			t.Fatal(err)
		}
	}
}
