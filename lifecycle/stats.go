package lifecycle

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"platelayer/containers/native"
	"platelayer/topology"
)

// Usage is what a station uses of the machine; its JSON form is stable.
type Usage struct {
	Station     string    `json:"station"` // "cluster/station"
	Time        time.Time `json:"time"`
	CPU         uint64    `json:"cpu"`          // nanoseconds of all processors since it was made
	CPUPercent  float64   `json:"cpu_percent"`  // of one processor, since the sample before
	Memory      int64     `json:"memory"`       // bytes, without file cache that is not in active use
	MemoryLimit int64     `json:"memory_limit"` // bytes; 0 is none
	Pids        int64     `json:"pids"`         // threads too
	PidsLimit   int64     `json:"pids_limit"`   // 0 is none
	BlockRead   uint64    `json:"block_read"`   // bytes
	BlockWrite  uint64    `json:"block_write"`
	NetReceive  uint64    `json:"net_receive"` // bytes, loopback left out
	NetSend     uint64    `json:"net_send"`
}

// Stats samples what the stations that run use. With an earlier sample each
// tells its share of a processor since then.
func Stats(l Layout, name string, which []*topology.Station, before []Usage) ([]Usage, error) {
	if err := needRoot("see what stations use"); err != nil {
		return nil, err
	}
	earlier := map[string]Usage{}
	for _, u := range before {
		earlier[u.Station] = u
	}
	all := []Usage{}
	for _, s := range which {
		c, err := running(l, name, s)
		if err != nil {
			continue // it does not run, or has just ended
		}
		used, err := native.ReadUsage(cgroup(name) + "/" + c.Container)
		if err != nil {
			return nil, err
		}
		u := Usage{
			Station: s.ID(), Time: time.Now(), CPU: used.CPU, Memory: used.Memory, MemoryLimit: used.MemoryLimit,
			Pids: used.Pids, PidsLimit: used.PidsLimit, BlockRead: used.ReadBytes, BlockWrite: used.WriteBytes,
		}
		u.NetReceive, u.NetSend = traffic(c.Process.Pid)
		if e, ok := earlier[u.Station]; ok && u.CPU >= e.CPU {
			if span := u.Time.Sub(e.Time); span > 0 {
				u.CPUPercent = 100 * float64(u.CPU-e.CPU) / float64(span.Nanoseconds())
			}
		}
		all = append(all, u)
	}
	return all, nil
}

// traffic sums up what a process's network namespace has received and sent
// (proc_pid_net(5), dev).
func traffic(pid int) (received, sent uint64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return 0, 0
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 9 || strings.TrimSpace(name) == "lo" {
			continue
		}
		var in, out uint64
		fmt.Sscan(fields[0], &in)
		fmt.Sscan(fields[8], &out)
		received, sent = received+in, sent+out
	}
	return received, sent
}
