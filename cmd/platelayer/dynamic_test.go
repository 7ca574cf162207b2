package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDynamicBuild: a dynamic program can't run inside foreign roots; it says
// so at once.
func TestDynamicBuild(t *testing.T) {
	needsRoot(t)
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc: without it go builds a static program anyway")
	}
	program := filepath.Join(t.TempDir(), "platelayer")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, text)
	}
	up := exec.Command(program, "--root", t.TempDir(), "up", "../../examples/hello")
	text, err := up.CombinedOutput()
	if up.ProcessState.ExitCode() != exitUnsupported || !strings.Contains(string(text), "CGO_ENABLED=0") {
		t.Errorf("a dynamic build: %v\n%s", err, text)
	}
}
