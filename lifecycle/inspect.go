package lifecycle

import (
	"errors"

	"platelayer/containers/native"
	"platelayer/netplan"
	"platelayer/topology"
)

// Inspection is all there is to know of a topology; its JSON form is stable
// but for what Plan and Topology have.
type Inspection struct {
	Name      string             `json:"name"`
	File      string             `json:"file"`
	Status    string             `json:"status"`
	AtBoot    bool               `json:"at_boot"`
	KeeperPid int                `json:"keeper_pid"` // 0 without one
	Backbone  *ContainerState    `json:"backbone"`   // null before its first start
	Stations  []Station          `json:"stations"`
	Topology  *topology.Topology `json:"topology"`
	Plan      *netplan.Plan      `json:"plan"`
}

// Inspect tells all about a topology.
func Inspect(l Layout, name string) (*Inspection, error) {
	intent, err := readIntent(l, name)
	if err != nil {
		return nil, err
	}
	i := &Inspection{Name: name, File: intent.File, AtBoot: intent.AtBoot, Topology: intent.Topology.WithoutSecrets()}
	if i.Plan, err = netplan.Build(intent.Topology); err != nil {
		return nil, err
	}
	if i.Stations, err = Ps(l, name); err != nil {
		return nil, err
	}
	state, err := readState(l, name)
	if unknown := new(NotKnown); err != nil && !errors.As(err, &unknown) {
		return nil, err
	}
	i.Status = status(intent, state)
	if state != nil {
		i.Backbone = state.Backbone
		if native.Alive(state.Keeper) {
			i.KeeperPid = state.Keeper.Pid
		}
	}
	return i, nil
}

// StationInspection is all there is to know of a station.
type StationInspection struct {
	Station
	Definition *topology.Station `json:"definition"`
	Network    *netplan.Node     `json:"network"`
	Process    *ContainerState   `json:"process"` // null before its first start
	Log        string            `json:"log"`     // path
	Written    string            `json:"written"` // path of its writable layer, "" in memory
}

// InspectStation tells all about a station of a topology.
func InspectStation(l Layout, name string, s *topology.Station) (*StationInspection, error) {
	all, err := Inspect(l, name)
	if err != nil {
		return nil, err
	}
	container := all.Topology.ContainerName(s)
	i := &StationInspection{Definition: s.WithoutSecrets(), Log: logPath(l, name, container)}
	if s.Writable != "memory" {
		i.Written = l.writable(name, container)
	}
	for _, p := range all.Stations {
		if p.Container == container {
			i.Station = p
		}
	}
	for n := range all.Plan.Nodes {
		if all.Plan.Nodes[n].NetNS == container {
			i.Network = &all.Plan.Nodes[n]
		}
	}
	if state, err := readState(l, name); err == nil {
		for _, c := range state.Stations {
			if c.Container == container {
				i.Process = c
			}
		}
	}
	return i, nil
}
