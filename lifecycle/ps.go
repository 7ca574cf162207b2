package lifecycle

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"platelayer/containers/native"
	"platelayer/topology"
)

// Station is one station as `ps` shows it; its JSON form is stable.
type Station struct {
	Name      string       `json:"name"`
	Cluster   string       `json:"cluster"`
	Container string       `json:"container"`
	State     string       `json:"state"`
	Health    *string      `json:"health"` // null without a health check
	Pid       int          `json:"pid"`    // 0 unless running
	Addresses []netip.Addr `json:"addresses"`
	NetNS     string       `json:"netns"` // path
	Image     string       `json:"image"`
	ExitCode  *int         `json:"exit_code"` // null while running, or where nobody knows
	StartedAt *time.Time   `json:"started_at"`
	Restarts  int          `json:"restarts"`
	OOM       bool         `json:"oom,omitempty"` // ended for lack of memory
}

// Ps lists a topology's stations in the order of its file. It needs no keeper.
func Ps(l Layout, name string) ([]Station, error) {
	intent, err := readIntent(l, name)
	if err != nil {
		return nil, err
	}
	state, err := readState(l, name)
	if unknown := new(NotKnown); err != nil && !errors.As(err, &unknown) {
		return nil, err
	}
	byName := map[string]ContainerState{}
	if state != nil {
		for _, c := range state.Stations {
			byName[c.Container] = c
		}
	}
	list := []Station{}
	t := intent.Topology
	for _, s := range stations(t) {
		container := t.ContainerName(s)
		c := byName[container]
		p := Station{
			Name: s.Name, Cluster: s.Cluster, Container: container, State: c.State,
			Addresses: addresses(s), NetNS: filepath.Join(l.NetNS, container), Image: imageOf(s),
		}
		if c.State == "" {
			p.State = Created
		}
		if !c.StartedAt.IsZero() {
			p.StartedAt = &c.StartedAt
		}
		switch {
		case c.State == Running && native.Alive(c.Process):
			p.Pid = c.Process.Pid
		case c.State == Running: // it ended while no keeper saw it
			p.State = Exited
		case c.Exit != nil && c.Exit.Code >= 0:
			p.ExitCode, p.OOM = &c.Exit.Code, c.Exit.OOM
		}
		list = append(list, p)
	}
	return list, nil
}

// Ailing says what is wrong with a topology besides its stations: "" is
// nothing.
func Ailing(l Layout, name string) string {
	state, err := readState(l, name)
	switch {
	case err != nil || !anyAlive(state):
		return ""
	case !native.Alive(state.Keeper):
		return "its keeper is gone: nobody reads what stations write, and one that writes much will wait"
	case state.Status == StatusUp && !native.Alive(state.Backbone.Process):
		return "its backbone has ended: nobody answers DNS"
	}
	return ""
}

// Listed is one topology as `ls` shows it; its JSON form is stable.
type Listed struct {
	Name     string     `json:"name"`
	Status   string     `json:"status"` // starting, up, degraded, failed, broken
	Stations int        `json:"stations"`
	Running  int        `json:"running"`
	File     string     `json:"file"`
	Started  *time.Time `json:"started_at"`
}

// Ls lists the topologies on this machine.
func Ls(l Layout) ([]Listed, error) {
	all, err := names(l)
	if err != nil {
		return nil, err
	}
	list := []Listed{}
	for _, name := range all {
		item := Listed{Name: name, Status: "broken"}
		if intent, err := readIntent(l, name); err == nil {
			item.File = intent.File
			item.Stations = len(stations(intent.Topology))
		}
		if state, err := readState(l, name); err == nil {
			item.Started = &state.Started
			item.Status = state.Status
			for _, c := range state.Stations {
				if c.State == Running && native.Alive(c.Process) {
					item.Running++
				}
			}
			switch {
			case !native.Alive(state.Keeper) && state.Status == StatusStarting:
				item.Status = "broken"
			case state.Status == StatusUp && (item.Running < item.Stations || !native.Alive(state.Keeper) || !native.Alive(state.Backbone.Process)):
				item.Status = "degraded"
			}
		}
		list = append(list, item)
	}
	return list, nil
}

// anyAlive reports whether a process of the topology still runs.
func anyAlive(s *State) bool {
	if native.Alive(s.Keeper) || native.Alive(s.Backbone.Process) {
		return true
	}
	for _, c := range s.Stations {
		if native.Alive(c.Process) {
			return true
		}
	}
	return false
}

// Recorded gives a topology as it was brought up.
func Recorded(l Layout, name string) (*topology.Topology, error) {
	intent, err := readIntent(l, name)
	if err != nil {
		return nil, err
	}
	return intent.Topology, nil
}

// running finds a running station and its state.
func running(l Layout, name string, s *topology.Station) (*ContainerState, error) {
	intent, err := readIntent(l, name)
	if err != nil {
		return nil, err
	}
	state, err := readState(l, name)
	if err != nil {
		return nil, err
	}
	container := intent.Topology.ContainerName(s)
	for i := range state.Stations {
		if c := &state.Stations[i]; c.Container == container && c.State == Running && native.Alive(c.Process) {
			return c, nil
		}
	}
	return nil, fmt.Errorf("station %q is not running", container)
}
