package kernel

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"testing"

	"platelayer/netplan"
)

// TestAmendWalk goes from one filter to the next, each of them made up: the
// kernel has each time what it would have if there had been no other before, in
// the same table.
func TestAmendWalk(t *testing.T) {
	const seed, steps = 1, 40
	random := rand.New(rand.NewPCG(seed, seed))
	inNewNetNS(t, func() error {
		nodes, fresh := make([]*netplan.Node, steps), make([]string, steps)
		for i := range nodes {
			nodes[i] = madeUp(random)
			var err error
			if fresh[i], err = remade(nodes[i]); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
		if _, err := remade(nodes[0]); err != nil {
			return err
		}
		first, err := listTables()
		if err != nil {
			return err
		}
		for i, n := range nodes {
			if _, _, err := settleFilter(n); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
			text, err := listRuleset()
			if err != nil {
				return err
			}
			if text != fresh[i] {
				return fmt.Errorf("step %d: it is\n%s\nwant\n%s", i, text, fresh[i])
			}
			if _, sent, err := settleFilter(n); err != nil || sent != 0 {
				return fmt.Errorf("step %d, and again, sent %d: %w", i, sent, err)
			}
		}
		if last, err := listTables(); err != nil || last != first {
			t.Errorf("the table was %q and is %q: %v", first, last, err)
		}
		return nil
	})
}

// listTables tells which tables there are; each has a number of its own.
func listTables() (string, error) {
	out, err := exec.Command("nft", "--handle", "list", "tables").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("nft: %w: %s", err, out)
	}
	return string(out), nil
}

// madeUp is a filter of prefixes that are often neighbours, or contain those of
// another filter, at both ends of the addresses too.
func madeUp(r *rand.Rand) *netplan.Node {
	own := madeUpPrefixes(r, 12)
	d := &netplan.Divert{Mark: 1, Port: 5, Hold: r.IntN(8) > 0, Own: own}
	for i := range r.IntN(4) {
		d.Origins = append(d.Origins, netplan.Origin{Dev: fmt.Sprintf("to-%d", i), From: madeUpPrefixes(r, 6)})
	}
	if r.IntN(6) > 0 {
		s := &netplan.Strangers{Links: madeUpPrefixes(r, 6), Forwarded: r.IntN(4) == 0}
		for range r.IntN(40) {
			s.Known = append(s.Known, madeUpAddr(r))
		}
		slices.SortFunc(s.Known, netip.Addr.Compare)
		s.Known = slices.Compact(s.Known)
		d.Strangers = s
	}
	n := &netplan.Node{Divert: d}
	for i := range r.IntN(4) {
		n.Apart = append(n.Apart, netplan.Pair{In: fmt.Sprintf("to-%d", i), Out: fmt.Sprintf("to-%d", r.IntN(9))})
	}
	return n
}

func madeUpAddr(r *rand.Rand) netip.Addr {
	size := 4
	if r.IntN(2) == 0 {
		size = 16
	}
	raw := bytes.Repeat([]byte{0, 0x20, 0xff}[r.IntN(3):][:1], size)
	raw[size-1] += byte(r.IntN(4))
	raw[size-2] += byte(r.IntN(2))
	a, _ := netip.AddrFromSlice(raw)
	return a
}

func madeUpPrefixes(r *rand.Rand, most int) (all []netip.Prefix) {
	for range r.IntN(most + 1) {
		a := madeUpAddr(r)
		less := r.IntN(12)
		if r.IntN(10) == 0 {
			less = a.BitLen() - r.IntN(2)
		}
		p := netip.PrefixFrom(a, a.BitLen()-less).Masked()
		if !slices.ContainsFunc(all, p.Overlaps) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return all
}

// TestAmendMany adds thousands of elements to running sets at once, and takes them
// away at once: more than one message of netlink has room for.
func TestAmendMany(t *testing.T) {
	few := filterSamples()["wider"]
	more := *few.Divert
	strangers := *more.Strangers
	strangers.Known = nil
	for _, first := range addrs("10.0.0.1", "fd00::1") {
		for a, n := first, 0; n < 5000; a, n = a.Next(), n+1 {
			strangers.Known = append(strangers.Known, a)
		}
	}
	more.Strangers = &strangers
	for i := range 2000 {
		from := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(64 + i>>8), byte(i), 0}), 24)
		more.Own = append(more.Own, from)
		more.Origins = append(more.Origins, netplan.Origin{Dev: fmt.Sprintf("to-%d", i), From: []netip.Prefix{from}})
	}
	many := &netplan.Node{Divert: &more}
	inNewNetNS(t, func() error {
		want, err := remade(few)
		if err != nil {
			return err
		}
		all, err := remade(many)
		if err != nil {
			return err
		}
		if _, err := remade(few); err != nil {
			return err
		}
		for _, step := range []struct {
			node *netplan.Node
			want string
		}{{many, all}, {few, want}} {
			if _, sent, err := settleFilter(step.node); err != nil || sent != 1 {
				return fmt.Errorf("sent %d: %w", sent, err)
			}
			if text, err := listRuleset(); err != nil || text != step.want {
				t.Errorf("it is %d bytes, want %d: %v", len(text), len(step.want), err)
			}
			if _, sent, err := settleFilter(step.node); err != nil || sent != 0 {
				t.Errorf("again, sent %d: %v", sent, err)
			}
		}
		return nil
	})
}
