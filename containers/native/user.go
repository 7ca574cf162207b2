package native

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// identity is whom a command runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// maxUserFile bounds what is read of a root's passwd and group.
const maxUserFile = 4 << 20

// lookupUser resolves a user, and further groups, by the root's own passwd and
// group. Numbers need neither: a root where they can't be read is not to keep
// its user out.
func lookupUser(root int, spec string, further []string) (*identity, error) {
	numeric := numbers(append(strings.Split(spec, ":"), further...))
	passwd, err := readUsers(root, "/etc/passwd", func(b []byte) error {
		_, err := user.ParsePasswdFilter(bytes.NewReader(b), func(user.User) bool { return false })
		return err
	})
	if err != nil && !numeric {
		return nil, fmt.Errorf("cannot find user %q: %w", spec, err)
	}
	group, err := readUsers(root, "/etc/group", func(b []byte) error {
		_, err := user.ParseGroupFilter(bytes.NewReader(b), func(user.Group) bool { return false })
		return err
	})
	if err != nil && !numeric {
		return nil, fmt.Errorf("cannot find the groups of user %q: %w", spec, err)
	}
	u, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	switch {
	case errors.Is(err, user.ErrNoPasswdEntries):
		return nil, fmt.Errorf("cannot find user %q in the root's /etc/passwd", spec)
	case errors.Is(err, user.ErrNoGroupEntries):
		return nil, fmt.Errorf("cannot find the group of %q in the root's /etc/group", spec)
	case err != nil:
		return nil, fmt.Errorf("cannot use user %q: %w", spec, err)
	}
	// The library looks at the numbers of the words only, not at the files'.
	if beyond(u.Uid) || beyond(u.Gid) || slices.ContainsFunc(u.Sgids, beyond) {
		return nil, fmt.Errorf("cannot use user %q: its numbers in the root's /etc/passwd and /etc/group are not from 0 to %d", spec, math.MaxInt32)
	}
	id := &identity{uid: uint32(u.Uid), gid: uint32(u.Gid), home: u.Home}
	for _, g := range u.Sgids {
		id.groups = append(id.groups, uint32(g))
	}
	more, err := user.GetAdditionalGroups(further, bytes.NewReader(group))
	switch {
	case errors.Is(err, user.ErrNoGroupEntries):
		return nil, fmt.Errorf("cannot find the groups %q in the root's /etc/group", further)
	case err != nil:
		return nil, fmt.Errorf("cannot use the groups %q: %w", further, err)
	}
	for _, g := range more {
		if !slices.Contains(id.groups, uint32(g)) {
			id.groups = append(id.groups, uint32(g))
		}
	}
	return id, nil
}

// beyond tells whether a number is no user's or group's, as docker takes them:
// setuid(2) takes -1 for none.
func beyond(id int) bool { return id < 0 || id > math.MaxInt32 }

// numbers tells whether all words are numbers, or empty.
func numbers(words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return strings.Trim(w, "0123456789") != "" })
}

// readUsers reads a root's passwd or group; without one it is empty.
func readUsers(root int, path string, parse func([]byte) error) ([]byte, error) {
	b, err := readIn(root, path, maxUserFile)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := parse(b); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return b, nil
}

// openIn opens a path as a process with that root would.
func openIn(root int, path string, flags uint64, mode uint64) (int, error) {
	how := &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Mode:    mode,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(root, path, how)
		// EAGAIN: a rename raced with a ".." of the path (openat2(2)).
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return fd, nil
	}
}

// readIn reads a regular file in a root.
func readIn(root int, path string, limit int64) ([]byte, error) {
	fd, err := openIn(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("cannot inspect %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("cannot read %s: it is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("cannot read %s: it is larger than %d bytes", path, limit)
	}
	return b, nil
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment completes env with what Docker sets when it is missing.
func environment(env []string, hostname string, u *identity, tty bool) []string {
	out := slices.DeleteFunc(slices.Clone(env), func(e string) bool { return e == "HOME=" }) // runc's way
	set := func(name, value string) {
		if value == "" {
			return
		}
		for _, e := range out {
			if strings.HasPrefix(e, name+"=") {
				return
			}
		}
		out = append(out, name+"="+value)
	}
	set("PATH", defaultPath)
	set("HOSTNAME", hostname)
	if tty {
		set("TERM", "xterm")
	}
	set("HOME", u.home)
	return out
}

func envValue(env []string, name string) string {
	value := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// lookPath finds a command as execvp(3) would inside the root. A name with a
// slash is left to the kernel.
func lookPath(root int, name, path string) (string, error) {
	if name == "" {
		return "", unix.ENOENT
	}
	if strings.Contains(name, "/") {
		return name, nil
	}
	found := error(unix.ENOENT)
	for dir := range strings.SplitSeq(path, ":") {
		if !strings.HasPrefix(dir, "/") {
			continue
		}
		candidate := strings.TrimSuffix(dir, "/") + "/" + name
		fd, err := openIn(root, candidate, unix.O_PATH, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		closeFD(fd)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if st.Mode&0o111 != 0 {
			return candidate, nil
		}
		found = unix.EACCES
	}
	return "", found
}
