package native

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ipcSysctls are the settings of an IPC namespace beside fs.mqueue's
// (ipc_namespaces(7)).
var ipcSysctls = []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
	"kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}

// setSysctls writes the settings of the namespaces that the thread is in; those
// of the machine are refused.
func (c *container) setSysctls(t *thread) error {
	if len(c.spec.Sysctls) == 0 {
		return nil
	}
	// The machine's /proc, which shows each thread its own namespaces'.
	root, err := unix.Openat(t.proc, "../../../sys", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open /proc/sys: %w", err)
	}
	defer closeFD(root)
	for _, s := range c.spec.Sysctls {
		file := sysctlFile(s.Name)
		name := strings.ReplaceAll(file, "/", ".")
		switch {
		case !filepath.IsLocal(file) || filepath.Clean(file) != file:
			return fmt.Errorf("cannot set %s: it is not a setting's name", s.Name)
		case strings.HasPrefix(name, "net."):
			if c.ns.net < 0 {
				return fmt.Errorf("cannot set %s: the container has no network of its own", s.Name)
			}
		case slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue."):
			if c.spec.IPCOf != nil {
				return fmt.Errorf("cannot set %s: the container shares another's IPC namespace", s.Name)
			}
		case name == "kernel.domainname":
		default:
			return fmt.Errorf("cannot set %s: it is the whole machine's", s.Name)
		}
		if err := writeSysctl(root, file, s.Value); err != nil {
			return fmt.Errorf("cannot set %s to %q: %w", s.Name, s.Value, err)
		}
	}
	return nil
}

// sysctlFile takes names as sysctl(8) does: where the first separator is a
// slash, dots are part of a name.
func sysctlFile(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		return name
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(name)
}

func writeSysctl(root int, name, value string) error {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return err
	}
	defer closeFD(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}
