package integrity

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	maxDepth   = 128     // folders
	maxVisited = 1 << 20 // objects; a link to "/" in a sealed folder reaches this soon
)

// inode identifies a folder on the way down, so that links can't lead in
// circles.
type inode struct{ dev, ino uint64 }

// openInRoot opens a path as the root's own processes would resolve it. The
// kernel answers EAGAIN when a rename or a mount anywhere raced with "..".
func openInRoot(root int, path string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(root, path, &how)
		if err == unix.EINTR || (err == unix.EAGAIN && try < 128) {
			continue
		}
		return fd, err
	}
}

// visit takes over fd, an O_PATH descriptor of what name resolves to. chain
// holds the folders above. Only what ends the whole scan is an error.
func (s *scanner) visit(fd int, name string, chain []inode) error {
	if s.ctx.Err() != nil {
		unix.Close(fd)
		return s.ctx.Err()
	}
	s.visited++
	if s.visited > maxVisited {
		unix.Close(fd)
		return fmt.Errorf("more than %d files under the sealed paths, at %q", maxVisited, name)
	}
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		unix.Close(fd)
		s.report(Found{Path: name, Problem: err.Error()})
		return nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		select {
		case s.jobs <- job{path: name, fd: fd}:
			return nil
		case <-s.ctx.Done():
			unix.Close(fd)
			return s.ctx.Err()
		}
	case unix.S_IFDIR:
		defer unix.Close(fd)
		self := inode{uint64(st.Dev), st.Ino}
		if slices.Contains(chain, self) {
			// A link on the way led back here; it is being walked already.
			return nil
		}
		return s.folder(fd, name, append(chain, self))
	}
	unix.Close(fd)
	s.report(Found{Path: name, Problem: "it is " + kind(st.Mode), Special: true})
	return nil
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	case unix.S_IFLNK:
		return "a link"
	}
	return "neither a file nor a folder"
}

// folder walks what is in a folder; the last of chain is the folder itself.
func (s *scanner) folder(fd int, name string, chain []inode) error {
	if len(chain) > maxDepth {
		s.report(Found{Path: name, Problem: fmt.Sprintf("it lies more than %d folders deep", maxDepth)})
		return nil
	}
	dirfd, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		s.report(Found{Path: name, Problem: err.Error()})
		return nil
	}
	dir := os.NewFile(uintptr(dirfd), name)
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		s.report(Found{Path: name, Problem: err.Error()})
		return nil
	}
	prefix := name
	if prefix != "/" {
		prefix += "/"
	}
	for _, e := range entries {
		if err := s.child(dirfd, e.Name(), prefix+e.Name(), chain); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) child(dirfd int, base, name string, chain []inode) error {
	fd, err := unix.Openat(dirfd, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		s.report(Found{Path: name, Problem: err.Error()})
		return nil
	}
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		unix.Close(fd)
		s.report(Found{Path: name, Problem: err.Error()})
		return nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return s.visit(fd, name, chain)
	}
	unix.Close(fd)
	fd, err = openInRoot(s.root, name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		// Dangling: there is no content to vouch for, and the day the link
		// resolves, its target is an extra file.
		return nil
	}
	if err != nil {
		s.report(Found{Path: name, Problem: describe(err)})
		return nil
	}
	return s.visit(fd, name, chain)
}

func fstat(fd int, st *unix.Stat_t) error {
	for {
		if err := unix.Fstat(fd, st); err != unix.EINTR {
			return err
		}
	}
}
