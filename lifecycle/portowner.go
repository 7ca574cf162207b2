package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// portOwner tells who listens on a port, as "nginx (pid 812)", or "" where
// nobody can be found: the socket's inode stands in /proc/net (proc_net(5)), and
// the program has a descriptor with it.
func portOwner(protocol string, port uint16) string {
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
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		return fmt.Sprintf("%s (pid %s)", word(strings.TrimSpace(string(name))), pid)
	}
	return ""
}
