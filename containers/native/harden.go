package native

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// openFiles is the hard limit that systemd gives services: thousands of
// stations fit.
const openFiles = 524288

// Harden prepares the calling program for being the parent of containers. A
// child shares its memory until exec, so nobody else may open that memory
// through the child's /proc: PR_SET_DUMPABLE. The limit of open files is
// raised, be the caller's ever so low, and the table of files grown once:
// growing it waits for RCU.
func Harden() error {
	// A change of user makes the memory readable again with this setting.
	if b, err := os.ReadFile("/proc/sys/fs/suid_dumpable"); err == nil && strings.TrimSpace(string(b)) == "1" {
		return &containers.Unsupported{Feature: "the setting fs.suid_dumpable=0 (1 opens the memory of starting containers to others)"}
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot close the program's memory to others: %w", err)
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("cannot read the limit of open files: %w", err)
	}
	high := max(lim.Max, openFiles)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: high, Max: high}); err != nil {
		// Without CAP_SYS_RESOURCE, or with a low fs.nr_open.
		high = lim.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: high, Max: high}); err != nil {
			return fmt.Errorf("cannot raise the limit of open files: %w", err)
		}
	}
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open /dev/null: %w", err)
	}
	defer closeFD(fd)
	if last, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, int(min(high, 8192))-1); err == nil {
		closeFD(last)
	}
	return nil
}
