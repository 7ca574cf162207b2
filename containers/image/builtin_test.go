package image

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// buildProgram builds a small program; text makes one differ from another.
func buildProgram(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\nfunc main() { println("+"`"+text+"`) }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	cmd := exec.Command("go", "build", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func mustBuiltin(t testing.TB, store, program string) string {
	t.Helper()
	root, err := builtin(store, program)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// listing names what is in a folder, besides the lock.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != ".lock" && e.Name() != cacheName {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestBuiltin(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	store := t.TempDir()
	program := buildProgram(t, "one")
	root := mustBuiltin(t, store, program)
	for path, mode := range map[string]os.FileMode{
		"":               0o755 | os.ModeDir,
		"bin/platelayer": 0o755,
		"tmp":            0o777 | os.ModeSticky | os.ModeDir,
		"var/tmp":        0o777 | os.ModeSticky | os.ModeDir,
		"etc/passwd":     0o644,
		"root":           0o700 | os.ModeDir,
	} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode {
			t.Errorf("/%s has mode %v, want %v", path, info.Mode(), mode)
		}
	}
	for _, name := range Programs() {
		path := filepath.Join(root, "bin", name)
		if target, err := os.Readlink(path); err != nil || target != "platelayer" {
			t.Errorf("%s: %s, %v", name, target, err)
		}
		if out, err := exec.Command(path).CombinedOutput(); err != nil || string(out) != "one\n" {
			t.Errorf("%s says %q, %v", name, out, err)
		}
	}
	if info, err := os.Stat(filepath.Dir(root)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the version's folder: %v, %v", info.Mode(), err)
	}
}

func TestBuiltinIsRepeatable(t *testing.T) {
	store := t.TempDir()
	one, two := buildProgram(t, "one"), buildProgram(t, "two")
	first := mustBuiltin(t, store, one)
	key := func() fileKey {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(first, "bin", binaryName), &st); err != nil {
			t.Fatal(err)
		}
		return statKey(&st)
	}
	before := key()
	second := mustBuiltin(t, store, two)
	if first == second {
		t.Error("two programs have one root")
	}
	for range 2 {
		if mustBuiltin(t, store, one) != first {
			t.Error("one program has two roots")
		}
	}
	if d := cmp.Diff(before, key()); d != "" {
		t.Errorf("it was written again: %s", d)
	}
}

func TestBuiltinRepairs(t *testing.T) {
	program := buildProgram(t, "whole")
	for name, damage := range map[string]func(binary string) error{
		"another byte": func(binary string) error {
			f, err := os.OpenFile(binary, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("x"), 5000)
			return err
		},
		"cut":  func(binary string) error { return os.Truncate(binary, 100) },
		"gone": os.Remove,
		"link": func(binary string) error {
			if err := os.Remove(binary); err != nil {
				return err
			}
			return os.Symlink("/bin/true", binary)
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := t.TempDir()
			root := mustBuiltin(t, store, program)
			leftover := filepath.Join(filepath.Dir(filepath.Dir(root)), tempPrefix+"killed")
			if err := os.MkdirAll(filepath.Join(leftover, "rootfs"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := damage(filepath.Join(root, "bin", binaryName)); err != nil {
				t.Fatal(err)
			}
			if mustBuiltin(t, store, program) != root {
				t.Error("the root has moved")
			}
			if out, err := exec.Command(filepath.Join(root, "bin/serve")).CombinedOutput(); err != nil || string(out) != "whole\n" {
				t.Errorf("it says %q, %v", out, err)
			}
			if names := listing(t, filepath.Dir(filepath.Dir(root))); len(names) != 1 {
				t.Errorf("leftovers: %v", names)
			}
		})
	}
}

func TestBuiltinConcurrently(t *testing.T) {
	store := t.TempDir()
	program := buildProgram(t, "many")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			root, err := builtin(store, program)
			if err != nil {
				t.Error(err)
				return
			}
			if err := exec.Command(filepath.Join(root, "bin/fetch")).Run(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if names := listing(t, filepath.Join(store, "images/builtin")); len(names) != 1 {
		t.Errorf("leftovers: %v", names)
	}
}

func TestBuiltinRefusesDynamic(t *testing.T) {
	const dynamic = "/bin/bash"
	if _, err := os.Stat(dynamic); err != nil {
		t.Skip("needs a dynamically linked program: " + dynamic)
	}
	_, err := builtin(t.TempDir(), dynamic)
	if !errors.As(err, new(DynamicError)) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkBuiltinCached(b *testing.B) {
	store := b.TempDir()
	program := buildProgram(b, "bench")
	mustBuiltin(b, store, program)
	for b.Loop() {
		mustBuiltin(b, store, program)
	}
}
