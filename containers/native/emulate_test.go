package native

import (
	"os"
	"path/filepath"
	"testing"
)

// The entries are those that Debian's qemu-user-static registers.
func TestEmulates(t *testing.T) {
	const arm64 = "interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n" +
		"magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
	for name, c := range map[string]struct {
		entry, architecture string
		want                bool
	}{
		"enabled":      {"enabled\n" + arm64, "arm64", true},
		"disabled":     {"disabled\n" + arm64, "arm64", false},
		"another":      {"enabled\n" + arm64, "riscv64", false},
		"unknown":      {"enabled\n" + arm64, "vax", false},
		"not held":     {"enabled\ninterpreter /usr/bin/qemu\nflags: \noffset 0\nmagic 7f454c460201010000000000000000000200b700\n", "arm64", false},
		"big-endian":   {"enabled\ninterpreter /q\nflags: F\noffset 0\nmagic 7f454c4602020100000000000000000000020016\nmask ffffffffffffff00fffffffffffffffffffeffff\n", "s390x", true},
		"by extension": {"enabled\ninterpreter /q\nflags: F\nextension .py\n", "arm64", false},
		"broken":       {"enabled\nflags: F\noffset 0\nmagic 7f4\n", "arm64", false},
		"empty":        {"", "arm64", false},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "entry"), []byte(c.entry), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := emulates(dir, c.architecture); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if emulates(filepath.Join(t.TempDir(), "none"), "arm64") {
		t.Error("without binfmt_misc")
	}
}
