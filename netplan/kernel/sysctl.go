package kernel

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// featureSettings is what a container that is not a privileged one lacks.
const featureSettings = "writing to /proc/sys/net"

// sysctlDirs holds folders below /proc/sys as one namespace sees them, open
// for the settings in them. The name of a folder that differs by namespace is
// one hash chain of as many entries as there are namespaces (proc_sys_compare
// in fs/proc/proc_sysctl.c), so each is walked once and not for every setting.
type sysctlDirs map[string]int

// setSysctls applies all to the calling thread's namespace: /proc/sys/net
// shows that of the thread that opens a file.
func setSysctls(all []netplan.Sysctl) error {
	dirs := sysctlDirs{}
	defer dirs.close()
	for _, s := range all {
		if err := dirs.set(s); err != nil {
			return fmt.Errorf("cannot set %s to %q: %w", s.Key, s.Value, err)
		}
	}
	return nil
}

// keepSysctls applies those that differ and returns how many did. It looks at
// each in its turn, for a change of one may change others.
func keepSysctls(all []netplan.Sysctl) (int, error) {
	dirs := sysctlDirs{}
	defer dirs.close()
	written := 0
	for _, s := range all {
		value, err := dirs.get(s.Key)
		if err == nil && value == s.Value || errors.Is(err, unix.ENOENT) && s.Optional {
			continue
		}
		if err := dirs.set(s); err != nil {
			return written, fmt.Errorf("cannot set %s to %q: %w", s.Key, s.Value, err)
		}
		written++
	}
	return written, nil
}

// getSysctl is one setting of the calling thread's namespace.
func getSysctl(key string) (string, error) {
	dirs := sysctlDirs{}
	defer dirs.close()
	return dirs.get(key)
}

// get is a setting with one space between its fields.
func (d sysctlDirs) get(key string) (string, error) {
	fd, err := d.file(key, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	buf := make([]byte, 256)
	n, err := unix.Read(fd, buf)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return "", err
	}
	return strings.Join(strings.Fields(string(buf[:n])), " "), nil
}

func (d sysctlDirs) file(key string, mode int) (int, error) {
	dir, name := splitKey(key)
	fd, err := d.open(dir)
	if err != nil {
		return -1, err
	}
	return unix.Openat(fd, name, mode|unix.O_CLOEXEC, 0)
}

func (d sysctlDirs) set(s netplan.Sysctl) error {
	fd, err := d.file(s.Key, unix.O_WRONLY)
	if errors.Is(err, unix.ENOENT) {
		if s.Optional {
			return nil
		}
		if strings.HasPrefix(s.Key, "net.ipv6.") {
			return &Unsupported{Feature: "IPv6", Err: err}
		}
	}
	if errors.Is(err, unix.EROFS) {
		return &Unsupported{Feature: featureSettings, Err: err}
	}
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(s.Value))
	return errors.Join(err, unix.Close(fd))
}

// open is a handle on the folder of key; "" is /proc/sys.
func (d sysctlDirs) open(key string) (int, error) {
	if fd, ok := d[key]; ok {
		return fd, nil
	}
	parent, name := unix.AT_FDCWD, "/proc/sys"
	if key != "" {
		up, last := splitKey(key)
		fd, err := d.open(up)
		if err != nil {
			return -1, err
		}
		parent, name = fd, last
	}
	fd, err := unix.Openat(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	d[key] = fd
	return fd, nil
}

func (d sysctlDirs) close() {
	for _, fd := range d {
		_ = unix.Close(fd)
	}
}

// splitKey parts a key at its last dot.
func splitKey(key string) (dir, name string) {
	i := strings.LastIndexByte(key, '.')
	return key[:max(i, 0)], key[i+1:]
}
