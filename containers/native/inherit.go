package native

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// checkLimits finds a resource limit that a process can't give its children:
// only CAP_SYS_RESOURCE raises a hard limit (setrlimit(2)). The zero parent is
// this process; of one that has ended nothing is found.
func checkLimits(parent containers.ProcessRef, list []containers.Ulimit) error {
	if mayRaise(parent) {
		return nil
	}
	for _, u := range list {
		var own unix.Rlimit
		if err := unix.Prlimit(parent.Pid, int(rlimitNames[u.Name]), nil, &own); err != nil {
			if err == unix.ESRCH {
				return nil
			}
			return fmt.Errorf("cannot read the limit %s: %w", u.Name, err)
		}
		if uint64(u.Hard) > own.Max {
			return fmt.Errorf("ulimit %s of %s is above this machine's hard limit, %d, which only CAP_SYS_RESOURCE raises",
				u.Name, limitText(u.Hard), own.Max)
		}
	}
	return nil
}

func limitText(n int64) string {
	if n == -1 {
		return "unlimited"
	}
	return strconv.FormatInt(n, 10)
}

// checkOOMScore does the same for the OOM score adjustment, which only
// CAP_SYS_RESOURCE lowers (proc_pid_oom_score_adj(5)). 0 is the parent's own.
func checkOOMScore(parent containers.ProcessRef, adj int) error {
	if adj == 0 || mayRaise(parent) {
		return nil
	}
	b, err := os.ReadFile("/proc/" + procName(parent) + "/oom_score_adj")
	if err != nil {
		return nil
	}
	own, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err == nil && adj < own {
		return fmt.Errorf("oom_score_adj of %d is below %d, that of the process which starts stations, and only CAP_SYS_RESOURCE lowers it", adj, own)
	}
	return nil
}

func procName(p containers.ProcessRef) string {
	if p.Pid == 0 {
		return "self"
	}
	return strconv.Itoa(p.Pid)
}

// mayRaise tells whether a process has CAP_SYS_RESOURCE, or has ended.
func mayRaise(p containers.ProcessRef) bool {
	status, err := os.ReadFile("/proc/" + procName(p) + "/status")
	if err != nil {
		return true
	}
	_, effective, _ := strings.Cut(string(status), "CapEff:")
	caps, err := strconv.ParseUint(strings.TrimSpace(strings.Split(effective, "\n")[0]), 16, 64)
	return err == nil && caps&(1<<unix.CAP_SYS_RESOURCE) != 0
}
