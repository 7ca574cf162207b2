package lifecycle

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
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
	Digest    string       `json:"digest,omitempty"`  // of the image that its name meant
	Exposed   []string     `json:"exposed,omitempty"` // ports that the image says it listens on, "80/tcp"
	ExitCode  *int         `json:"exit_code"`         // null while running, or where nobody knows
	StartedAt *time.Time   `json:"started_at"`
	Restarts  int          `json:"restarts"`
	OOM       bool         `json:"oom,omitempty"`       // ended for lack of memory
	OOMKills  int          `json:"oom_kills,omitempty"` // of its processes, since it was started
	Reason    string       `json:"reason,omitempty"`    // why it does not run
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
	byName := map[string]*ContainerState{}
	if state != nil {
		for _, c := range state.Stations {
			byName[c.Container] = c
		}
	}
	list := []Station{}
	t := intent.Topology
	for _, s := range t.Stations() {
		container := t.ContainerName(s)
		c := byName[container]
		if c == nil {
			c = &ContainerState{State: Created}
			if intent.Launched && state == nil { // a reboot took the rest
				c.State = Exited
			}
		}
		p := Station{
			Name: s.Name, Cluster: s.Cluster, Container: container, State: c.State,
			Addresses: addresses(s), NetNS: filepath.Join(l.NetNS, container), Image: imageOf(s), Digest: s.Digest, Exposed: s.Exposed,
			Restarts: c.Restarts, Reason: c.Reason, OOMKills: c.OOMKills,
		}
		if !c.StartedAt.IsZero() {
			p.StartedAt = &c.StartedAt
		}
		if c.Exit != nil && c.Exit.Code >= 0 && !c.started() {
			p.ExitCode, p.OOM = &c.Exit.Code, c.Exit.OOM
		}
		switch {
		case c.alive():
			p.Pid = c.Process.Pid
			if c.Health != "" {
				p.Health = &c.Health
			}
		case c.started(): // it ended while no keeper saw it
			p.State = Exited
		}
		list = append(list, p)
	}
	return list, nil
}

// Ailing says what is wrong with a topology besides its stations: "" is
// nothing.
func Ailing(l Layout, name string) string {
	intent, err := readIntent(l, name)
	if err != nil {
		return ""
	}
	state, err := readState(l, name)
	if err != nil {
		state = nil
	}
	switch {
	case state == nil && intent.Launched, state != nil && intent.Launched && !anyAlive(state):
		return "it is not up any more, as after a reboot: up starts it again with what its stations wrote"
	case state == nil:
		return ""
	case !native.Alive(state.Keeper):
		return "its keeper is gone: nobody reads what stations write, and one that writes much will wait"
	case state.Status == StatusChanging && !state.OneOff:
		return "a change of it did not finish: up again finishes it"
	case state.Status == StatusUp && !native.Alive(state.Backbone.Process):
		return "its backbone has ended: nobody answers DNS"
	}
	return ""
}

// status is a topology's status as ls shows it.
func status(intent *Intent, state *State) string {
	if intent == nil {
		return "broken"
	}
	if state == nil || !anyAlive(state) {
		if intent.Launched {
			return "down"
		}
		return "broken"
	}
	keeper := native.Alive(state.Keeper)
	switch {
	case state.Status == StatusStarting && !keeper:
		return "broken"
	case state.Status != StatusUp && !(state.OneOff && keeper):
		return state.Status
	case !keeper || !native.Alive(state.Backbone.Process):
		return "degraded"
	}
	for _, c := range lasting(intent, state) {
		finished := metNow(c, topology.CompletedSuccessfully)
		if !finished && (!c.alive() || c.Health == healthUnhealthy) {
			return "degraded"
		}
	}
	return StatusUp
}

// lasting leaves one-off stations out: those of the intent, and those that go
// and are in it no longer.
func lasting(intent *Intent, state *State) []*ContainerState {
	if intent == nil {
		return state.Stations
	}
	known := map[string]bool{}
	for _, s := range intent.Topology.Stations() {
		if _, is := intent.OneOffs[s.ID()]; !is {
			known[intent.Topology.ContainerName(s)] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(state.Stations), func(c *ContainerState) bool { return !known[c.Container] })
}

// Listed is one topology as `ls` shows it; its JSON form is stable.
type Listed struct {
	Name     string     `json:"name"`
	Status   string     `json:"status"` // starting, up, changing, degraded, failed, down, broken
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
		item := Listed{Name: name}
		intent, err := readIntent(l, name)
		if err == nil {
			item.File = intent.File
			item.Stations = len(intent.Topology.Stations()) - len(intent.OneOffs)
		}
		state, err := readState(l, name)
		if err == nil {
			item.Started = &state.Started
			for _, c := range lasting(intent, state) {
				if c.alive() {
					item.Running++
				}
			}
		}
		item.Status = status(intent, state)
		if unknown := new(NotKnown); err != nil && !errors.As(err, &unknown) {
			item.Status = "broken" // nobody can tell what runs
		}
		list = append(list, item)
	}
	return list, nil
}

// anyAlive reports whether a process of the topology still runs.
func anyAlive(s *State) bool { return s.any(native.Alive) }

// UpStations lists the ids of the stations that a running topology has; none
// where it is not up.
func UpStations(l Layout, name string) []string {
	found, err := look(l, name)
	if err != nil || !found.running {
		return nil
	}
	var ids []string
	for _, s := range found.intent.Topology.Stations() {
		ids = append(ids, s.ID())
	}
	return ids
}

// UpFrom lists the topologies that are up from a file, absolute.
func UpFrom(l Layout, file string) []string {
	all, _ := names(l)
	return slices.DeleteFunc(all, func(name string) bool {
		i, err := readIntent(l, name)
		return err != nil || i.File != file || !runs(l, name)
	})
}

// FileOf is the file that a topology was brought up from.
func FileOf(l Layout, name string) (string, error) {
	intent, err := readIntent(l, name)
	if err != nil {
		return "", err
	}
	return intent.File, nil
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
	if unknown := new(NotKnown); errors.As(err, &unknown) {
		return nil, &NotUp{name}
	}
	if err != nil {
		return nil, err
	}
	container := intent.Topology.ContainerName(s)
	for i := range state.Stations {
		if c := state.Stations[i]; c.Container == container && c.alive() {
			return c, nil
		}
	}
	return nil, fmt.Errorf("station %q is not running", container)
}
