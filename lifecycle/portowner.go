package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// portOwner tells who listens on a port, as "nginx (pid 812)" or by the name of
// the topology, or "" where nobody can be found: the socket's inode stands in /proc/net (proc_net(5)), and
// the program has a descriptor with it.
func (o outside) portOwner(protocol string, port uint16) string {
	suffix := fmt.Sprintf(":%04X", port)
	inodes := map[string]bool{}
	for _, file := range []string{protocol, protocol + "6"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			const local, state, inode = 1, 3, 9
			f := strings.Fields(line)
			if len(f) > inode && strings.HasSuffix(f[local], suffix) && (f[state] == "0A" || protocol == "udp") { // TCP_LISTEN
				inodes["socket:["+f[inode]+"]"] = true
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
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(link, "/")[2]
		if name := o.topologyOf(pid); name != "" {
			return fmt.Sprintf("topology %q", name)
		}
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		return fmt.Sprintf("%s (pid %s)", word(strings.TrimSpace(string(name))), pid)
	}
	return ""
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
