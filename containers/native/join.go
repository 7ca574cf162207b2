package native

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// joinIPC enters the IPC namespace of the container that the spec names and
// clones its /dev/shm, which is shared with it.
func (c *container) joinIPC() error {
	if c.spec.IPCOf == nil {
		return nil
	}
	pidfd, err := openRef(*c.spec.IPCOf)
	if err != nil {
		return fmt.Errorf("cannot find the container whose IPC namespace is shared: %w", err)
	}
	defer closeFD(pidfd)
	// A mount can be cloned only from inside its namespace.
	if err := unix.Setns(pidfd, unix.CLONE_NEWIPC|unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot enter the shared IPC namespace: %w", err)
	}
	shm, err := openIn(unix.AT_FDCWD, "/dev/shm", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("cannot open the shared /dev/shm: %w", err)
	}
	defer closeFD(shm)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(shm, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("cannot share /dev/shm: it is no tmpfs")
	}
	c.shm, err = cloneMount(shm, "", false)
	return err
}

// openPIDs opens the process whose pid namespace is shared, by its pid on the
// machine.
func (c *container) openPIDs() (int, error) {
	pidfd, err := openRef(*c.spec.PIDOf)
	if err != nil {
		return -1, fmt.Errorf("cannot find the container whose processes are shared: %w", err)
	}
	return pidfd, nil
}

// joinPIDs makes the thread's next child one of that container's.
func joinPIDs(t *thread, pidfd int) error {
	if err := t.leavePIDs(); err != nil {
		return err
	}
	if err := unix.Setns(pidfd, unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("cannot enter the shared pid namespace: %w", err)
	}
	return nil
}
