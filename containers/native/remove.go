package native

import (
	"crypto/rand"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// RemoveAll removes what a container wrote, as os.RemoveAll does. That has a
// descriptor for each folder on its way down, and a container can make more
// folders in each other than a process may have descriptors.
func RemoveAll(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, unix.EMFILE) {
		return err
	}
	if err := flatten(path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// flatten moves folders that lie deep below another right into that one, until
// none does. Links are not followed.
func flatten(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer closeFD(fd)
	l := &lifter{top: fd, lifted: []string{"."}}
	for len(l.lifted) > 0 {
		name := l.lifted[len(l.lifted)-1]
		l.lifted = l.lifted[:len(l.lifted)-1]
		if err := l.below(fd, name, 0); err != nil {
			return &os.PathError{Op: "remove", Path: path, Err: err}
		}
	}
	return nil
}

type lifter struct {
	top    int
	lifted []string // names in top whose content has not been looked at
}

func (l *lifter) below(dir int, name string, depth int) error {
	const most = 100
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), "folder")
	defer d.Close()
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			var st unix.Stat_t
			if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == unix.ENOENT {
				continue
			} else if err != nil {
				return err
			}
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				continue
			}
			if depth < most {
				if err := l.below(fd, name, depth+1); err != nil {
					return err
				}
				continue
			}
			fresh := ".platelayer-" + rand.Text()
			if err := unix.Renameat(fd, name, l.top, fresh); err != nil {
				return err
			}
			l.lifted = append(l.lifted, fresh)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
