package native

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// protected marks a program that has been started anew, so that it never does
// so twice.
const protected = "PLATELAYER_PROTECTED"

// Protect starts the calling program anew from a read-only mount of its own
// file, unless it runs from one; then it returns. A command in a container may
// be a script whose interpreter is /proc/self/exe: that starts the program that
// called execve inside the container, where others can open its file through
// /proc and write to it (CVE-2019-5736). On a read-only mount the write fails.
// It is called before anything else is done, by programs that start commands
// in containers.
func Protect() error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/proc/self/exe", &fs); err != nil {
		return fmt.Errorf("cannot inspect the program's own file: %w", err)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return os.Unsetenv(protected)
	}
	if os.Getenv(protected) != "" {
		return fmt.Errorf("cannot protect the program's own file from containers")
	}
	fd, err := cloneMount(unix.AT_FDCWD, "/proc/self/exe", false)
	if err != nil {
		return fmt.Errorf("cannot protect the program's own file: %w", err)
	}
	if err := setMount(fd, unix.MOUNT_ATTR_RDONLY, false); err != nil {
		closeFD(fd)
		return err
	}
	env := append(os.Environ(), protected+"=1")
	err = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), os.Args, env)
	closeFD(fd)
	return fmt.Errorf("cannot start the protected program: %w", err)
}
