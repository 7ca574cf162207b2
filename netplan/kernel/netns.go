package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
		return nil, fmt.Errorf("cannot make network namespace %s: %w", name, err)
	}
	for _, s := range sysctls {
		if err := setSysctl(s); err != nil {
			return nil, fmt.Errorf("cannot set %s to %q in %s: %w", s.Key, s.Value, name, err)
		}
	}
	f, err := os.Open(threadNetNS)
	if err != nil {
		return nil, fmt.Errorf("cannot open network namespace %s: %w", name, err)
	}
	return f, nil
}

// setSysctl writes below /proc/sys/net, which shows the namespace of the
// thread that opens a file.
func setSysctl(s netplan.Sysctl) error {
	path := "/proc/sys/" + strings.ReplaceAll(s.Key, ".", "/")
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		if s.Optional {
			return nil
		}
		if strings.HasPrefix(s.Key, "net.ipv6.") {
			return &Unsupported{Feature: "IPv6", Err: err}
		}
	}
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(s.Value))
	return errors.Join(err, unix.Close(fd))
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
	link := filepath.Join(o.NetNSDir, name)
	err = os.Symlink(path, link)
	if errors.Is(err, fs.ErrExist) {
		return &NameTaken{Path: link}
	}
	if err != nil {
		return fmt.Errorf("cannot name network namespace %s: %w", name, err)
	}
	return nil
}
