package native

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// show names a path of this side in messages.
func (s *CopySide) show(p string) string { return s.Name + p }

// open opens a path: in a root, as a process with that root would.
func (s *CopySide) open(p string, flags int) (int, error) {
	if s.Root != nil {
		return openIn(int(s.Root.Fd()), p, uint64(flags), 0)
	}
	for {
		fd, err := unix.Open(p, flags|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: p, Err: err}
		}
		return fd, nil
	}
}

// base is the name of what a path means, or "" for a root.
func (s *CopySide) base(p string) string {
	if s.Root == nil && !path.IsAbs(p) {
		if dir, err := os.Getwd(); err == nil {
			p = dir + "/" + p
		}
	}
	if name := path.Base(path.Clean("/" + p)); name != "/" {
		return name
	}
	return ""
}

// failed tells what is wrong with a path.
func (s *CopySide) failed(p string, err error) error {
	var inner *os.PathError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return fmt.Errorf("cannot open %s: %w", s.show(p), err)
}

// copyFrom is an opened source.
type copyFrom struct {
	fd      int // O_PATH
	mode    uint32
	name    string // of its copy in another folder
	content bool   // what is in the folder is meant, not the folder
}

func (s *copyFrom) folder() bool { return s.mode&unix.S_IFMT == unix.S_IFDIR }

// openSource opens what a path means: with "/." at its end the content of a
// folder, with "/" a folder.
func openSource(side *CopySide, follow bool) (*copyFrom, error) {
	p := side.Path
	s := &copyFrom{name: side.base(p), content: p == "." || strings.HasSuffix(p, "/.")}
	flags := unix.O_PATH
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	var err error
	if s.fd, err = side.open(p, flags); err != nil {
		return nil, side.failed(p, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(s.fd, &st); err != nil {
		closeFD(s.fd)
		return nil, side.failed(p, err)
	}
	s.mode = st.Mode
	s.content = s.content || s.name == ""
	return s, nil
}

// copyTo is an opened destination: a name in a folder, or with no name the
// folder itself.
type copyTo struct {
	fd   int // O_PATH
	name string
	path string // of the folder, for messages
}

// openDestination finds where a source goes: into a folder that is there, else
// to the path's own name in the folder before it, which must be there.
func openDestination(side *CopySide, name string, folder, content bool) (*copyTo, error) {
	p := side.Path
	demanded := strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || p == "." || p == ".."
	fd, err := side.open(p, unix.O_PATH)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, side.failed(p, err)
	}
	if err != nil {
		if demanded && !folder {
			return nil, fmt.Errorf("cannot copy to %s: there is no such folder", side.show(p))
		}
		return side.locate(strings.TrimSuffix(strings.TrimRight(p, "/"), "/."))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		closeFD(fd)
		return nil, side.failed(p, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if content {
			name = ""
		}
		return side.accept(&copyTo{fd, name, strings.TrimRight(strings.TrimSuffix(p, "/."), "/")})
	}
	closeFD(fd)
	if folder {
		return nil, fmt.Errorf("cannot copy a folder over %s, which is none", side.show(p))
	}
	return side.locate(p)
}

// locate finds the folder and the name in it that a path leads to, through the
// links at its end. Nothing need be there.
func (s *CopySide) locate(p string) (*copyTo, error) {
	asked := p
	for range 40 { // as the kernel's own limit, path_resolution(7)
		i := strings.LastIndexByte(p, '/')
		dir, name := p[:i+1], p[i+1:]
		if name == "" || name == "." || name == ".." {
			return nil, fmt.Errorf("cannot copy to %s: %w", s.show(asked), unix.ENOENT)
		}
		fd, err := s.open(dir+".", unix.O_PATH|unix.O_DIRECTORY)
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("cannot copy to %s: there is no folder %s", s.show(asked), s.show(orDot(dir)))
		}
		if err != nil {
			return nil, s.failed(asked, err)
		}
		var buffer [unix.PathMax]byte
		n, err := unix.Readlinkat(fd, name, buffer[:])
		if err != nil { // not a link, or nothing
			return s.accept(&copyTo{fd, name, strings.TrimRight(orDot(dir), "/")})
		}
		closeFD(fd)
		if p = strings.TrimRight(string(buffer[:n]), "/"); !path.IsAbs(p) {
			p = dir + p // the kernel resolves what is in it, dots too
		}
	}
	return nil, fmt.Errorf("cannot copy to %s: %w", s.show(asked), unix.ELOOP)
}

// accept refuses a folder that can hold no files.
func (s *CopySide) accept(to *copyTo) (*copyTo, error) {
	if err := s.holds(to.fd); err != nil {
		closeFD(to.fd)
		return nil, fmt.Errorf("cannot copy to %s: %w", s.show(s.Path), err)
	}
	return to, nil
}

// holds tells why a folder can hold no files.
func (s *CopySide) holds(dir int) error {
	if kernels, err := kernelFS(dir); err != nil || kernels {
		return cmp.Or(err, errKernelFS)
	}
	for _, p := range s.Passing {
		fd, err := s.open(p, unix.O_PATH)
		if err != nil {
			continue
		}
		theirs, err := mountID(fd)
		closeFD(fd)
		if err != nil {
			return err
		}
		if ours, err := mountID(dir); err != nil || ours == theirs {
			return errors.Join(err, errors.New("it lies in memory, which is empty at each start"))
		}
	}
	return nil
}

func orDot(dir string) string {
	if dir == "" {
		return "."
	}
	return dir
}

// procFD names an open file, whatever its name is now.
func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// readLink reads the link that an O_PATH descriptor is of.
func readLink(fd int) (string, error) {
	var buffer [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", buffer[:])
	return string(buffer[:max(n, 0)]), err
}

var errKernelFS = errors.New("it lies in a file system of the kernel's own")

// kernelFS tells whether a file system holds no files but the kernel's words.
func kernelFS(fd int) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return false, err
	}
	switch uint32(fs.Type) { // of another size on 32-bit processors
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.NSFS_MAGIC, unix.BINFMTFS_MAGIC,
		unix.EFIVARFS_MAGIC, unix.PSTOREFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.RDTGROUP_SUPER_MAGIC,
		unix.PID_FS_MAGIC, configfsMagic, mqueueMagic:
		return true, nil
	}
	return false, nil
}

// Magic numbers of fs/configfs and ipc/mqueue.c.
const (
	configfsMagic = 0x62656570
	mqueueMagic   = 0x19800202
)
