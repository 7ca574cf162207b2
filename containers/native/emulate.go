package native

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
)

const binfmtDir = "/proc/sys/fs/binfmt_misc"

// Emulates tells whether the kernel has an interpreter for programs of another
// architecture, by Go's name, that works in a container: one that was opened
// when it was registered, flag F (Documentation/admin-guide/binfmt-misc.rst).
func Emulates(architecture string) bool { return emulates(binfmtDir, architecture) }

func emulates(dir, architecture string) bool {
	program, ok := elfHead(architecture)
	if !ok {
		return false
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err == nil && takes(string(text), program) {
			return true
		}
	}
	return false
}

// takes tells whether an interpreter, as its file describes it, gets a program
// that begins with these bytes.
func takes(entry string, program []byte) bool {
	lines := strings.Split(entry, "\n")
	if lines[0] != "enabled" {
		return false
	}
	said := map[string]string{}
	for _, l := range lines[1:] {
		key, value, _ := strings.Cut(l, " ")
		said[strings.TrimSuffix(key, ":")] = value
	}
	magic, err := hex.DecodeString(said["magic"])
	if err != nil || len(magic) == 0 || len(magic) > len(program) || said["offset"] != "0" || !strings.Contains(said["flags"], "F") {
		return false
	}
	mask, err := hex.DecodeString(said["mask"])
	if err != nil || len(mask) != 0 && len(mask) != len(magic) {
		return false
	}
	for i := range magic {
		m := byte(0xff)
		if len(mask) > 0 {
			m = mask[i]
		}
		if (magic[i]^program[i])&m != 0 {
			return false
		}
	}
	return true
}

// elfHead is how an architecture's programs begin (elf(5)).
func elfHead(architecture string) (head []byte, ok bool) {
	const class32, class64, little, big = 1, 2, 1, 2
	kind, ok := map[string]struct {
		class, order byte
		machine      uint16
	}{
		"386": {class32, little, 3}, "amd64": {class64, little, 62}, "arm": {class32, little, 40}, "arm64": {class64, little, 183},
		"riscv64": {class64, little, 243}, "ppc64le": {class64, little, 21}, "ppc64": {class64, big, 21}, "s390x": {class64, big, 22},
		"mips64le": {class64, little, 8}, "mips64": {class64, big, 8}, "mipsle": {class32, little, 8}, "mips": {class32, big, 8},
		"loong64": {class64, little, 258},
	}[architecture]
	if !ok {
		return nil, false
	}
	head = make([]byte, 128) // as much as the kernel compares
	copy(head, []byte{0x7f, 'E', 'L', 'F', kind.class, kind.order, 1})
	var order binary.ByteOrder = binary.LittleEndian
	if kind.order == big {
		order = binary.BigEndian
	}
	const executable = 2
	order.PutUint16(head[16:], executable)
	order.PutUint16(head[18:], kind.machine)
	return head, true
}
