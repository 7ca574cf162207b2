package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNetworkDocument holds what docs/network.md shows of `net`, which needs no
// privilege: about the file that the command names, the one shown before it, or
// examples/network.
func TestNetworkDocument(t *testing.T) {
	program := build(t)
	data, err := os.ReadFile("../../docs/network.md")
	if err != nil {
		t.Fatal(err)
	}
	vlans := filepath.Join(t.TempDir(), "platelayer.yaml")
	shown := 0
	for _, block := range regexp.MustCompile("(?s)```(console|yaml)\n(.*?)```").FindAllStringSubmatch(string(data), -1) {
		if block[1] == "yaml" {
			if strings.Contains(block[2], "vlans:") {
				if err := os.WriteFile(vlans, []byte(block[2]), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			continue
		}
		for _, m := range regexp.MustCompile(`(?m)^\$ platelayer (net .*)\n((?:[^$].*\n|\n)*)`).FindAllStringSubmatch(block[2], -1) {
			args := strings.Fields(m[1])
			if slices.Contains([]string{"check", "dns", "leaks"}, args[1]) {
				continue
			}
			shown++
			file := "examples/network/platelayer.yaml"
			if strings.Contains(m[2], "VLAN") {
				file = vlans
			}
			if !strings.Contains(m[1], ".yaml") {
				args = append(args, "-f", file)
			}
			c := exec.Command(program, args...)
			c.Dir = "../.."
			got, err := c.CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v\n%s", m[1], err, got)
			} else if diff := cmp.Diff(m[2], string(got)); diff != "" {
				t.Errorf("docs/network.md shows another output of %s (-document +now):\n%s", m[1], diff)
			}
		}
	}
	if shown < 5 {
		t.Errorf("docs/network.md shows %d commands", shown)
	}
}
