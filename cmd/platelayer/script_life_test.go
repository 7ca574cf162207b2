package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"platelayer/containers"
	"platelayer/containers/native"
)

// keeperOf reads who keeps a topology.
func keeperOf(root, name string) (containers.ProcessRef, error) {
	var state struct{ Keeper containers.ProcessRef }
	data, err := os.ReadFile(filepath.Join(root, "run", name, "state.json"))
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	return state.Keeper, err
}

// endKeeper kills the keeper of a topology and waits until it is gone.
func endKeeper(root, name string) error {
	ref, err := keeperOf(root, name)
	if err != nil {
		return err
	}
	process, err := native.OpenProcess(ref)
	if err != nil {
		return err
	}
	if err := process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	_, err = process.Wait()
	return err
}

// killKeeperCommand: `killkeeper` ends the keeper of $NAME with SIGKILL.
func killKeeperCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: killkeeper")
	}
	if err := endKeeper(ts.Getenv("PLATELAYER_ROOT"), ts.Getenv("NAME")); err != nil {
		ts.Fatalf("cannot kill the keeper: %v", err)
	}
}

// signalCommand: `signal KILL STATION` signals a station's first process behind
// platelayer's back.
func signalCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signal name station")
	}
	var state struct {
		Stations []struct {
			Station string
			Process containers.ProcessRef
		}
	}
	data, err := os.ReadFile(filepath.Join(ts.Getenv("PLATELAYER_ROOT"), "run", ts.Getenv("NAME"), "state.json"))
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil {
		ts.Fatalf("cannot read the state: %v", err)
	}
	for _, s := range state.Stations {
		if filepath.Base(s.Station) != args[1] {
			continue
		}
		process, err := native.OpenProcess(s.Process)
		if err == nil {
			err = process.Signal(unix.SignalNum("SIG" + args[0]))
		}
		if err != nil {
			ts.Fatalf("cannot signal %s: %v", args[1], err)
		}
		return
	}
	ts.Fatalf("there is no station %s", args[1])
}

// samePidsCommand: `samepids FILE CLUSTER/STATION...` wants the pids that `ps
// --json` wrote into the file before.
func samePidsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: samepids file station...")
	}
	pids := func(text []byte) map[string]int {
		var list []struct {
			Name, Cluster string
			Pid           int
		}
		if err := json.Unmarshal(text, &list); err != nil {
			ts.Fatalf("no list of stations: %v", err)
		}
		all := map[string]int{}
		for _, s := range list {
			all[s.Cluster+"/"+s.Name] = s.Pid
		}
		return all
	}
	before := pids([]byte(ts.ReadFile(args[0])))
	c := exec.Command(filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], "platelayer"), "ps", "--json", "-n", ts.Getenv("NAME"))
	c.Env = []string{"PLATELAYER_ROOT=" + ts.Getenv("PLATELAYER_ROOT")}
	out, err := c.Output()
	if err != nil {
		ts.Fatalf("cannot list stations: %v", err)
	}
	now := pids(out)
	for _, id := range args[1:] {
		if (before[id] == now[id]) == neg {
			ts.Fatalf("%s had pid %d and has %d", id, before[id], now[id])
		}
	}
}

const awaitAtMost = 20 * time.Second
