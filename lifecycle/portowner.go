package lifecycle

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"platelayer/containers/native"
)

// portOwner tells who listens on a port, as "nginx (pid 812)" or by the name of
// the topology, or "" where nobody can be found: the socket's inode stands in /proc/net (proc_net(5)), and
// the program has a descriptor with it.
func (o outside) portOwner(protocol string, port uint16) string {
	inodes := map[string]bool{}
	for _, file := range []string{protocol, protocol + "6"} {
		for _, f := range sockets("thread-self", file) {
			if f.port == port && (f.state == "0A" || protocol == "udp") { // TCP_LISTEN
				inodes[f.name] = true
			}
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	pid := holder(links, inodes)
	if name := o.topologyOf(pid); name != "" {
		return fmt.Sprintf("topology %q", name)
	}
	return program(pid)
}

// sender tells which program of a station's control group sends from a port, as
// "curl (pid 812)", or "" where nobody can be found: it has ended, or sends
// packets that it makes itself.
func sender(group, network string, from, to netip.AddrPort) string {
	pids, err := native.Processes(group)
	if err != nil || len(pids) == 0 {
		return ""
	}
	inodes := map[string]bool{}
	for _, file := range []string{network, network + "6"} {
		for _, f := range sockets(strconv.Itoa(pids[0]), file) {
			if f.port == from.Port() && (network != "tcp" || f.peer == to.Port()) {
				inodes[f.name] = true
			}
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	for _, pid := range pids {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if found := holder(links, inodes); found != "" {
			return program(found)
		}
	}
	return ""
}

// socketEntry is a socket as /proc/net has it.
type socketEntry struct {
	port, peer uint16
	state      string
	name       string // as a link in /proc/PID/fd has it
}

func sockets(pid, file string) []socketEntry {
	text, err := os.ReadFile("/proc/" + pid + "/net/" + file)
	if err != nil {
		return nil
	}
	var all []socketEntry
	for line := range strings.Lines(string(text)) {
		const local, remote, state, inode = 1, 2, 3, 9
		f := strings.Fields(line)
		if len(f) <= inode {
			continue
		}
		port := func(of string) uint16 {
			n, _ := strconv.ParseUint(of[strings.LastIndexByte(of, ':')+1:], 16, 16)
			return uint16(n)
		}
		all = append(all, socketEntry{port(f[local]), port(f[remote]), f[state], "socket:[" + f[inode] + "]"})
	}
	return all
}

// holder is the process whose link, of /proc/PID/fd, is one of these sockets.
func holder(links []string, sockets map[string]bool) (pid string) {
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && sockets[target] {
			return strings.Split(link, "/")[2]
		}
	}
	return ""
}

func program(pid string) string {
	if pid == "" {
		return ""
	}
	name, _ := os.ReadFile("/proc/" + pid + "/comm")
	return fmt.Sprintf("%s (pid %s)", word(strings.TrimSpace(string(name))), pid)
}

// topologyOf is the topology whose keeper or backbone a process is, or "".
func (o outside) topologyOf(pid string) string {
	all, _ := names(o.layout)
	for _, name := range all {
		state, err := readState(o.layout, name)
		if err == nil && slices.Contains([]string{strconv.Itoa(state.Keeper.Pid), strconv.Itoa(state.Backbone.Process.Pid)}, pid) {
			return name
		}
	}
	return ""
}
