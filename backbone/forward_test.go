package backbone

import (
	"net/netip"
	"testing"
)

// TestOneAskerLeavesRoom: a station that asks without end does not take the
// others' room, and all together have a bound.
func TestOneAskerLeavesRoom(t *testing.T) {
	f := forwards{of: map[netip.Addr]int{}}
	begin := func(from netip.Addr) (n int) {
		for f.begin(from) {
			n++
		}
		return n
	}
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	if n := begin(a); n != maxForwardsEach {
		t.Errorf("one asker has %d questions under way", n)
	}
	if n := begin(b); n != maxForwardsEach {
		t.Errorf("beside it another has %d", n)
	}
	for range maxForwardsEach {
		f.end(a)
	}
	if n := begin(a); n != maxForwardsEach || len(f.of) != 2 {
		t.Errorf("after they ended: %d, %v", n, f.of)
	}
	total := f.all
	for next := b.Next(); total < maxForwards; next = next.Next() {
		total += begin(next)
	}
	if f.all != maxForwards || f.begin(netip.MustParseAddr("10.9.9.9")) {
		t.Errorf("%d are under way", f.all)
	}
}
