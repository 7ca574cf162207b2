package image

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// openFolder opens a folder below another. Links in its name that the archive
// has made are followed as long as they stay below; the root is where absolute
// ones begin, as in a container.
func openFolder(root int, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd, err := openat2(root, name, &how)
	if err == unix.ELOOP {
		var to string
		if to, err = followLinks(root, name); err != nil {
			return -1, err
		}
		fd, err = openat2(root, to, &how)
	}
	switch err {
	case nil:
		return fd, nil
	case unix.ENOTDIR:
		return -1, bad("%q is not a folder", shorten(name))
	}
	return -1, fmt.Errorf("cannot open the folder %q: %w", shorten(name), err)
}

// followLinks gives the name, without links, of what a name means. What isn't
// there is taken for a folder, as it is found out when it is opened.
func followLinks(root int, name string) (string, error) {
	const most = 40 // path_resolution(7)
	links, at, rest := 0, ".", strings.Split(name, "/")
	for steps := 0; len(rest) > 0; steps++ {
		// Links that lead through each other reach as deep as nobody can go.
		if steps > unix.PathMax || len(at) >= unix.PathMax {
			return "", bad("the folder %q is behind links and too deep", shorten(name))
		}
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if at == "." {
				return "", bad("the folder %q is behind a link that leads out of the image", shorten(name))
			}
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		to, err := readLink(root, next)
		if err != nil {
			return "", err
		}
		if to == "" {
			at = next
			continue
		}
		if links++; links > most {
			return "", bad("the links of %q lead in a circle", shorten(name))
		}
		if strings.HasPrefix(to, "/") {
			at = "."
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return at, nil
}

// readLink gives what a link holds, and "" for what is none or isn't there. No
// part of the name but the last may be one.
func readLink(root int, name string) (string, error) {
	fd, err := openat2(root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err == unix.ENOENT {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	to := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", to)
	if err != nil { // readlinkat(2): ENOENT for what is no link
		return "", nil
	}
	return string(to[:n]), nil
}

func openat2(dir int, name string, how *unix.OpenHow) (int, error) {
	for {
		fd, err := unix.Openat2(dir, name, how)
		// EAGAIN: a rename somewhere raced with a ".." of the path (openat2(2)).
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}
