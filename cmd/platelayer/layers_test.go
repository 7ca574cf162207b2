package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestLayers guards DESIGN section 6: who may import whom, and who may use the
// libraries that change the machine.
func TestLayers(t *testing.T) {
	allowed := map[string][]string{
		"platelayer/topology":          {},
		"platelayer/netplan":           {"platelayer/topology"},
		"platelayer/netplan/kernel":    {"platelayer/netplan"},
		"platelayer/containers":        {},
		"platelayer/containers/native": {"platelayer/containers"},
		"platelayer/containers/image":  {"platelayer/containers"},
		"platelayer/integrity":         {},
		"platelayer/graph":             {"platelayer/topology"},
		"platelayer/authority":         {"platelayer/topology"},
		"platelayer/policy":            {"platelayer/topology"},
		"platelayer/resolved":          {},
		"platelayer/backbone":          {"platelayer/topology", "platelayer/netplan"},
		"platelayer/lifecycle": {"platelayer/topology", "platelayer/netplan", "platelayer/netplan/kernel", "platelayer/containers",
			"platelayer/containers/native", "platelayer/containers/image", "platelayer/integrity", "platelayer/backbone", "platelayer/authority",
			"platelayer/resolved", "platelayer/policy"},
		"platelayer/ci/bench/pingpong": {},
		"platelayer/cmd/platelayer": {"platelayer/topology", "platelayer/netplan", "platelayer/containers", "platelayer/containers/image",
			"platelayer/integrity", "platelayer/backbone", "platelayer/graph", "platelayer/lifecycle", "platelayer/policy"},
	}
	// Libraries with one user.
	only := map[string][]string{
		"github.com/spf13/cobra":           {"platelayer/cmd/platelayer"},
		"github.com/vishvananda/netlink":   {"platelayer/netplan/kernel"},
		"github.com/vishvananda/netns":     {"platelayer/netplan/kernel"},
		"gopkg.in/yaml.v3":                 {"platelayer/topology", "platelayer/containers/image", "platelayer/policy"},
		"github.com/moby/profiles/seccomp": {"platelayer/containers/native"},
		"github.com/miekg/dns":             {"platelayer/backbone"},
	}
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "platelayer/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		may, known := allowed[p.ImportPath]
		if !known {
			t.Errorf("%s is not in the layout", p.ImportPath)
		}
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "platelayer") && !slices.Contains(may, i) {
				t.Errorf("%s must not import %s", p.ImportPath, i)
			}
			for library, users := range only {
				if (i == library || strings.HasPrefix(i, library+"/")) && !slices.Contains(users, p.ImportPath) {
					t.Errorf("%s must not import %s", p.ImportPath, i)
				}
			}
		}
	}
	if seen != len(allowed) {
		t.Errorf("found %d packages, the layout has %d", seen, len(allowed))
	}
}
