package kernel

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// neighbours are what the kernel has learned of who is on the wires of some
// namespaces. All namespaces of the machine share one bound for it
// (gc_thresh3 in Documentation/networking/ip-sysctl.rst, 1024 entries unless
// set); packets to further neighbours are dropped.
type neighbours struct {
	sockets []*socket // one in each namespace
	most    int       // entries, before it is time to forget
}

func newNeighbours() *neighbours {
	n := &neighbours{most: 512}
	for _, family := range []string{"ipv4", "ipv6"} {
		bound := 0
		data, err := os.ReadFile("/proc/sys/net/" + family + "/neigh/default/gc_thresh3")
		if _, scanned := fmt.Sscan(string(data), &bound); err == nil && scanned == nil {
			n.most = min(n.most, bound/2)
		}
	}
	return n
}

// open adds the calling thread's namespace.
func (n *neighbours) open() error {
	s, err := openSocket()
	if err == nil {
		n.sockets = append(n.sockets, s)
	}
	return err
}

func (n *neighbours) close() {
	for _, s := range n.sockets {
		s.close()
	}
}

// crowded tells whether it is time to forget; since is how many packets were
// sent since the last time. Others may fill the table too.
func (n *neighbours) crowded(since int) bool {
	if since < n.most/4 {
		return false
	}
	for _, table := range []string{"arp_cache", "ndisc_cache"} {
		data, err := os.ReadFile("/proc/net/stat/" + table)
		if err != nil { // the machine's own namespace has it alone
			return true
		}
		_, line, _ := strings.Cut(string(data), "\n")
		entries := 0
		if _, err := fmt.Sscanf(line, "%x", &entries); err == nil && entries >= n.most {
			return true
		}
	}
	return false
}

// forget drops what was learned: the next packet learns it again. What a
// program has set stays.
func (n *neighbours) forget() error {
	for _, s := range n.sockets {
		var drop batch
		_, err := s.dump(unix.RTM_GETNEIGH, "neighbours", func(entry []byte) {
			const stateAt = 8 // ndm_state of struct ndmsg
			if len(entry) < unix.SizeofNdMsg || entry[stateAt]&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 {
				return
			}
			drop.again(unix.RTM_DELNEIGH, entry, func() string { return "forget a neighbour" })
		}, raw(make([]byte, unix.SizeofNdMsg)))
		if err != nil {
			return err
		}
		if !drop.empty() {
			_ = s.send(&drop) // one that is gone meanwhile is an error
		}
	}
	return nil
}
