package native

import (
	"errors"
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

// sharedProc clones the /proc of the container whose processes are shared: a new
// one would show those of the process that mounts it, which stays outside. The
// thread is in that container's mount namespace afterwards.
func sharedProc(t *thread, pidfd int) (int, error) {
	t.away = true
	// A mount can be cloned only from inside its namespace.
	if err := unix.Setns(pidfd, unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("cannot enter the container whose processes are shared: %w", err)
	}
	at, err := openIn(unix.AT_FDCWD, "/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open the shared /proc: %w", err)
	}
	defer closeFD(at)
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(at, &fs), unix.Fstat(at, &st)); err != nil || fs.Type != unix.PROC_SUPER_MAGIC || st.Ino != procRoot {
		return -1, errors.Join(errors.New("cannot share /proc: it is not what the engine mounted"), err)
	}
	fd, err := cloneMount(at, "", false)
	if err != nil {
		return -1, err
	}
	if err := setMount(fd, quiet, false); err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

const procRoot = 1 // PROC_ROOT_INO of linux/proc_fs.h
