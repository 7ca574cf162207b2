package backbone

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// maxConns bounds the TCP connections of all who ask.
const maxConns = 512

// conns are the TCP connections of those who ask. Where there are too many,
// whoever has the most loses the one that has said nothing for longest (RFC
// 7766, section 6.2.3): one that opens many takes no room from others.
type conns struct {
	mu  sync.Mutex
	all map[*askingConn]struct{}
}

type askingConn struct {
	*net.TCPConn
	from  netip.Addr
	asked time.Time // last, or when it was accepted
}

func (c *conns) add(conn *net.TCPConn) *askingConn {
	from, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	made := &askingConn{conn, from.Addr(), time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[made] = struct{}{}
	if len(c.all) > maxConns {
		last := c.dispensable()
		last.Close()
		delete(c.all, last)
	}
	return made
}

func (c *conns) dispensable() *askingConn {
	of := map[netip.Addr]int{}
	for conn := range c.all {
		of[conn.from]++
	}
	var found *askingConn
	for conn := range c.all {
		if found == nil || of[conn.from] > of[found.from] || of[conn.from] == of[found.from] && conn.asked.Before(found.asked) {
			found = conn
		}
	}
	return found
}

// asks notes that there was a question on a connection.
func (c *conns) asks(conn *askingConn) {
	c.mu.Lock()
	conn.asked = time.Now()
	c.mu.Unlock()
}

func (c *conns) remove(conn *askingConn) {
	c.mu.Lock()
	delete(c.all, conn)
	c.mu.Unlock()
}
