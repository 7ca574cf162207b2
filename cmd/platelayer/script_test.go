package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts run the real program, built as the README says, on real
// namespaces. Each has a state folder and topology names of its own.

func TestScripts(t *testing.T) {
	needsRoot(t)
	runScripts(t, "testdata/script")
}

// runScripts runs the scripts of a folder, with variables "NAME=value" in their
// environment.
func runScripts(t *testing.T, dir string, variables ...string) {
	bin := filepath.Dir(build(t))
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	captured := newCaptures()
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Condition:           condition,
		Setup: func(e *testscript.Env) error {
			// None begins with another: what is left is found by how names begin.
			name := fmt.Sprintf("%s-t%d", strings.TrimPrefix(filepath.Base(e.WorkDir), "script-"), os.Getpid())
			root := filepath.Join(e.WorkDir, ".state")
			e.Setenv("PATH", bin+":/usr/sbin:/usr/bin:/sbin:/bin")
			e.Setenv("PLATELAYER_ROOT", root)
			e.Setenv("NAME", name)
			e.Setenv("REPO", repo)
			e.Values[registryKey{}] = new(*scriptRegistry)
			e.Vars = append(e.Vars, variables...)
			// Whatever a failing script left is taken down.
			e.Defer(func() { downAll(t, filepath.Join(bin, "platelayer"), root) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":       codeCommand,
			"pair":       pairCommand,
			"query":      queryCommand,
			"between":    betweenCommand,
			"await":      awaitCommand,
			"until":      untilCommand,
			"samepids":   samePidsCommand,
			"killkeeper": killKeeperCommand,
			"signal":     signalCommand,
			"machine":    machineCommand,
			"sign":       signCommand,
			"registry":   registryCommand,
			"publish":    publishCommand,
			"unpacked":   unpackedCommand,
			"engine":     engineCommand,
			"firewall":   firewallCommand,
			"asplanned":  asPlannedCommand,
			"capture":    captured.start,
			"captured":   captured.stop,
			"send":       sendCommand,
			"spoof":      spoofCommand,
			"clean": func(ts *testscript.TestScript, neg bool, _ []string) {
				if left := leftOf(t, ts.Getenv("NAME"), ts.Getenv("PLATELAYER_ROOT")); (left == "") == neg {
					ts.Fatalf("left on the machine: %s", left)
				}
			},
		},
	})
}

// condition tells `vlans`: the kernel has them on bridges and on interfaces, and
// `br_netfilter`: it lets firewalls see what crosses bridges.
func condition(name string) (bool, error) {
	switch name {
	case "CI": // which has all tools
		return os.Getenv("CI") != "", nil
	case "br_netfilter":
		_, err := os.Stat("/proc/sys/net/bridge")
		return err == nil, nil
	case "vlans":
	default:
		return false, fmt.Errorf("there is no condition %s", name)
	}
	err := exec.Command("unshare", "-n", "sh", "-c", "ip link add br type bridge vlan_filtering 1 && ip link add link br name v type vlan id 2").Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return false, nil
	}
	return err == nil, err
}

func needsRoot(t testing.TB) {
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test needs root, and CI has it")
	}
	t.Skip("needs root: it makes real namespaces")
}

// build gives the program as users build it, or the one that
// PLATELAYER_PROGRAM names where there is no compiler.
func build(t testing.TB) string {
	t.Helper()
	if built := os.Getenv("PLATELAYER_PROGRAM"); built != "" {
		return built
	}
	out := filepath.Join(t.TempDir(), "platelayer")

	c := exec.Command("go", "build", "-o", out, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the program: %v\n%s", err, text)
	}
	return out
}

func downAll(t testing.TB, program, root string) {
	text, err := exec.Command(program, "--root", root, "ls", "--json").Output()
	if err != nil {
		return
	}
	var list []struct{ Name string }
	if json.Unmarshal(text, &list) != nil {
		return
	}
	for _, topology := range list {
		// A command of a script that failed may still be at its end.
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			text, err := exec.Command(program, "--root", root, "down", "--name", topology.Name).CombinedOutput()
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("cannot take %s down: %v\n%s", topology.Name, err, text)
				break
			}
		}
	}
}

// codeCommand: `code N PROGRAM ARG...` runs a program that must end with N.
func codeCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N program arg...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("cannot run %s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s ended with %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// awaitCommand: `await 'logs db' PATTERN` runs platelayer's command about $NAME
// again and again until its output matches.
func awaitCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: await command pattern")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	for deadline := time.Now().Add(awaitAtMost); ; time.Sleep(20 * time.Millisecond) {
		c := exec.Command(filepath.Join(strings.Split(ts.Getenv("PATH"), ":")[0], "platelayer"), append(strings.Fields(args[0]), "-n", ts.Getenv("NAME"))...)
		c.Env = []string{"PATH=" + ts.Getenv("PATH"), "PLATELAYER_ROOT=" + ts.Getenv("PLATELAYER_ROOT")}
		c.Dir = ts.MkAbs(".")
		out, err := c.CombinedOutput()
		if err == nil && pattern.Match(out) != neg {
			return
		}
		if err != nil || time.Now().After(deadline) {
			ts.Fatalf("no %s within %s in (%v)\n%s", args[1], awaitAtMost, err, out)
		}
	}
}

// pairCommand: `pair` sets PAIR to a word of at most 7 bytes for the names of a
// script's own interfaces and namespace on the machine, which end with it. One
// script of a run may have it.
func pairCommand(ts *testscript.TestScript, _ bool, _ []string) {
	pair := fmt.Sprintf("p%x", os.Getpid())
	ts.Setenv("PAIR", pair)
	ts.Defer(func() {
		for _, words := range []string{"link del " + pair + "a", "link del " + pair + "o", "link del pl-" + pair + "-l", "netns del " + pair} {
			_ = exec.Command("ip", strings.Fields(words)...).Run() // a good script has removed them
		}
	})
}

// untilCommand: `until PATTERN PROGRAM ARG...` runs a program again and again
// until it succeeds with output that matches, with `!` output that does not.
func untilCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: until pattern program arg...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	for deadline := time.Now().Add(awaitAtMost); ; time.Sleep(20 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && pattern.MatchString(out) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("waited %s for %s in (%v)\n%s", awaitAtMost, args[0], err, out)
		}
	}
}

// queryCommand: `query PATH VALUE` looks into the JSON on stdout: a path of
// keys and indexes with dots; LENGTH is the length of a list.
func queryCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: query path value")
	}
	v := find(ts, args[0])
	got := fmt.Sprint(v)
	if f, ok := v.(float64); ok {
		got = fmt.Sprint(int64(f))
	}
	if (got == args[1]) == neg {
		ts.Fatalf("%s is %s, want %s", args[0], got, args[1])
	}
}

// betweenCommand: `between PATH LOW HIGH` wants a number in the JSON on stdout
// not to be below LOW nor above HIGH.
func betweenCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: between path low high")
	}
	var low, high float64
	if n, err := fmt.Sscan(args[1]+" "+args[2], &low, &high); n != 2 {
		ts.Fatalf("%v", err)
	}
	if got, ok := find(ts, args[0]).(float64); !ok || got < low || got > high {
		ts.Fatalf("%s is %v, want one from %v to %v", args[0], got, low, high)
	}
}

// find looks a path up in the JSON on stdout.
func find(ts *testscript.TestScript, path string) any {
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &v); err != nil {
		ts.Fatalf("stdout is not JSON: %v", err)
	}
	for _, key := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[key]; !ok {
				ts.Fatalf("there is no %s", key)
			}
		case []any:
			if key == "LENGTH" {
				v = len(x)
				continue
			}
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(x) {
				ts.Fatalf("there is no element %s of %d", key, len(x))
			}
			v = x[i]
		default:
			ts.Fatalf("%s has no %s", path, key)
		}
	}
	return v
}
