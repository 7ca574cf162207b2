package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

const threadNetNS = "/proc/thread-self/ns/net"

// enterNewNetNS puts the calling thread into a new namespace, applies its
// settings and returns a handle on it. Until it is pinned the namespace dies
// with the thread and the handle, so a killed Apply leaves none.
func enterNewNetNS(name string, sysctls []netplan.Sysctl) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return nil, &Unsupported{Feature: "network namespaces", Err: err}
		}
		if errors.Is(err, unix.ENOSPC) { // namespaces(7)
			return nil, fmt.Errorf("cannot make network namespace %s: as many as user.max_net_namespaces allows are there: %w", name, err)
		}
		return nil, fmt.Errorf("cannot make network namespace %s: %w", name, err)
	}
	if err := setSysctls(sysctls); err != nil {
		return nil, fmt.Errorf("cannot configure %s: %w", name, err)
	}
	f, err := os.Open(threadNetNS)
	if err != nil {
		return nil, fmt.Errorf("cannot open network namespace %s: %w", name, err)
	}
	return f, nil
}

// pin keeps the calling thread's namespace alive and gives it a name.
func pin(o Options, name string) error {
	path := filepath.Join(o.PinDir, name)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return fmt.Errorf("cannot pin network namespace %s: %w", name, err)
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("cannot pin network namespace %s: %w", name, err)
	}
	if err := unix.Mount(threadNetNS, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot pin network namespace %s: %w", name, err)
	}
	return nameNetNS(path, filepath.Join(o.NetNSDir, name))
}

// nameNetNS gives the pin at path the name link.
func nameNetNS(path, link string) error {
	err := os.Symlink(path, link)
	if errors.Is(err, fs.ErrExist) {
		return namespaceTaken(link)
	}
	if err != nil {
		return fmt.Errorf("cannot name network namespace %s: %w", filepath.Base(path), err)
	}
	return nil
}

// enter moves the calling thread into a namespace.
func enter(ns *os.File) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot enter network namespace %s: %w", filepath.Base(ns.Name()), err)
	}
	return nil
}

// openSocketIn moves the calling thread into a namespace and opens a socket,
// which stays there.
func openSocketIn(ns *os.File) (*socket, error) {
	if err := enter(ns); err != nil {
		return nil, err
	}
	return openSocket()
}
