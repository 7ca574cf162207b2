package image

import (
	"io"
	"os"
	"path/filepath"
)

// Programs lists the names under which the program stands in the image's /bin
// besides its own: which one it is called by says what it does.
func Programs() []string { return []string{"serve", "fetch", "lookup"} }

// fill makes the image's root folder. Modes are set whatever the umask is.
func fill(root string, exe *os.File) error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{
		{"", 0o755},
		{"bin", 0o755},
		{"dev", 0o755},
		{"etc", 0o755},
		{"home", 0o755},
		{"proc", 0o555},
		{"root", 0o700},
		{"run", 0o755},
		{"sys", 0o555},
		{"tmp", 0o777 | os.ModeSticky},
		{"var", 0o755},
		{"var/tmp", 0o777 | os.ModeSticky},
	} {
		path := filepath.Join(root, d.path)
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(path, d.mode); err != nil {
			return err
		}
	}
	for path, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/platelayer\n" +
			"user:x:1000:1000:user:/home:/bin/platelayer\n" +
			"nobody:x:65534:65534:nobody:/:/bin/platelayer\n",
		"etc/group":         "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
		"etc/nsswitch.conf": "hosts: files dns\n",
		// The engine mounts its own over these two.
		"etc/hosts":       "",
		"etc/resolv.conf": "",
	} {
		if err := writeFile(filepath.Join(root, path), text); err != nil {
			return err
		}
	}
	for _, name := range Programs() {
		if err := os.Symlink(binaryName, filepath.Join(root, "bin", name)); err != nil {
			return err
		}
	}
	return copyProgram(filepath.Join(root, "bin", binaryName), exe)
}

func writeFile(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}

// copyProgram copies the program and syncs it: a version is looked at once,
// when it is installed, and must not be half there after a power cut.
func copyProgram(path string, exe *os.File) error {
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := exe.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(to, exe); err != nil {
		return err
	}
	if err := to.Chmod(0o755); err != nil {
		return err
	}
	if err := to.Sync(); err != nil {
		return err
	}
	return to.Close()
}
