package native

import (
	"bytes"
	"encoding/binary"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// lacking gives the interpreter that a program of a root names, a script's or
// the dynamic linker, where the root doesn't have it: execve(2) says of both, and
// of a program that isn't there itself, ENOENT. Nothing else is told.
func lacking(root int, program string) string {
	if !path.IsAbs(program) {
		return "" // relative to the working folder
	}
	fd, err := openIn(root, program, unix.O_PATH, 0)
	if err != nil {
		return ""
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	closeFD(fd)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ""
	}
	if fd, err = openIn(root, program, unix.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
		return ""
	}
	defer closeFD(fd)
	const most = 4096 // headers that lie further on are not looked at
	head := make([]byte, most)
	n, err := unix.Pread(fd, head, 0)
	if err != nil {
		return ""
	}
	name := interpreter(head[:n])
	if !strings.HasPrefix(name, "/") {
		return ""
	}
	found, err := openIn(root, name, unix.O_PATH, 0)
	if err == nil {
		closeFD(found)
		return ""
	}
	return name
}

// interpreter reads the beginning of a program: a script's first line, or an
// ELF program's PT_INTERP (elf(5)). Package debug/elf is not made for files of
// people who mean harm.
func interpreter(head []byte) string {
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, whole := bytes.Cut(line, []byte("\n"))
		name, _, more := strings.Cut(strings.Trim(string(line), " \t"), " ")
		name, _, tab := strings.Cut(name, "\t")
		if !whole && !more && !tab {
			return ""
		}
		return name
	}
	const (
		header, programHeader = 64, 56 // bytes, of ELFCLASS64
		interp                = 3
	)
	if len(head) < header || !bytes.HasPrefix(head, []byte("\x7fELF\x02\x01")) {
		return ""
	}
	little := binary.LittleEndian
	at, size, count := little.Uint64(head[32:]), little.Uint16(head[54:]), little.Uint16(head[56:])
	if size != programHeader {
		return ""
	}
	for range count {
		if at > uint64(len(head)-programHeader) {
			return ""
		}
		h := head[at:]
		if little.Uint32(h) == interp {
			from, length := little.Uint64(h[8:]), little.Uint64(h[32:])
			if from > uint64(len(head)) || length > uint64(len(head))-from {
				return ""
			}
			name, _, _ := strings.Cut(string(head[from:from+length]), "\x00")
			return name
		}
		at += programHeader
	}
	return ""
}
