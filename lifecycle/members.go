package lifecycle

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"platelayer/containers/native"
	"platelayer/topology"
)

// reorder makes the members those of the intent, in the order of its file;
// ones that are there already stay. Those that the file no longer has come
// last until they have been forgotten. The keeper's mutex is held.
func (k *keeper) reorder() {
	t := k.intent.Topology
	have := map[string]*member{}
	for _, m := range k.members {
		have[m.state.Container] = m
	}
	for _, c := range k.state.Stations { // of an earlier keeper
		if have[c.Container] == nil {
			have[c.Container] = newMember(k, c)
		}
	}
	var members []*member
	wanted := map[string]bool{}
	for _, s := range t.Stations() {
		name := t.ContainerName(s)
		wanted[name] = true
		m := have[name]
		if m == nil {
			m = newMember(k, &ContainerState{Container: name, State: Created})
		}
		m.station, m.state.Station = s, s.ID()
		members = append(members, m)
	}
	for _, c := range k.state.Stations {
		m := have[c.Container]
		if wanted[c.Container] || (c.State == Created && !m.present()) {
			continue
		}
		if m.station == nil { // nobody knows any more how it wants to be stopped
			cluster, name, _ := strings.Cut(strings.TrimPrefix(c.Container, t.Name+"."), ".")
			m.station = &topology.Station{Cluster: cluster, Name: name, StopSignal: "SIGTERM", StopGracePeriod: 10 * time.Second}
		}
		members = append(members, m)
	}
	k.members, k.state.Stations = members, nil
	for _, m := range members {
		k.state.Stations = append(k.state.Stations, m.state)
	}
}

// stray tells whether the file has the member no longer, and an earlier
// keeper left it to be stopped. Nobody knows what it would be started from.
func (k *keeper) stray(m *member) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.isStray(m)
}

// isStray is stray with the keeper's mutex held.
func (k *keeper) isStray(m *member) bool {
	c := k.intent.Topology.Cluster(m.station.Cluster)
	if c == nil {
		return true
	}
	for i := range c.Stations {
		if &c.Stations[i] == m.station {
			return false
		}
	}
	return true
}

func newMember(k *keeper, c *ContainerState) *member {
	return &member{k: k, state: c, changed: make(chan struct{}), master: -1, redo: make(chan struct{}, 1)}
}

// present tells whether there is something of the member to be stopped.
func (m *member) present() bool {
	if m.done != nil {
		select {
		case <-m.done:
		default:
			return true
		}
	}
	return m.state.started()
}

// runs tells whether the member, in the given state, has a process that runs.
func (m *member) runs(c *ContainerState) bool {
	m.k.mu.Lock()
	process := m.process
	m.k.mu.Unlock()
	if p, ok := process.(native.Runner); ok {
		return c.started() && p.Running()
	}
	return c.alive()
}

// member finds a station's member by its id; nil is none.
func (k *keeper) member(id string) *member {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range k.members {
		if m.station.ID() == id {
			return m
		}
	}
	return nil
}

// chosen finds the members that a request names, in the order of the file;
// none named are all.
func (k *keeper) chosen(ids []string) ([]*member, error) {
	wanted := map[string]bool{}
	for _, id := range ids {
		if k.member(id) == nil {
			return nil, fmt.Errorf("there is no station %q in topology %q", id, k.name)
		}
		wanted[id] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var members []*member
	for _, m := range k.members {
		if len(ids) == 0 || wanted[m.station.ID()] {
			members = append(members, m)
		}
	}
	return members, nil
}

// withNeeds adds the members that the given ones depend on and that do not run.
func (k *keeper) withNeeds(members []*member) []*member {
	return k.closure(members, func(m *member) (more []*member) {
		for _, d := range m.definition().DependsOn {
			on := k.member(d.Station)
			if on == nil {
				continue
			}
			if c, _, _ := on.now(); !c.alive() && !metNow(&c, d.Condition) {
				more = append(more, on)
			}
		}
		return more
	})
}

// withFollowers adds the members that ask to be restarted with the given ones.
func (k *keeper) withFollowers(members []*member) []*member {
	followers := map[string][]*member{}
	all, _ := k.chosen(nil)
	for _, m := range all {
		for _, d := range m.definition().DependsOn {
			if c, _, _ := m.now(); d.Restart && c.alive() {
				followers[d.Station] = append(followers[d.Station], m)
			}
		}
	}
	return k.closure(members, func(m *member) []*member { return followers[m.definition().ID()] })
}

// sharers adds the members that run and share a namespace with the given ones.
func (k *keeper) sharers(members []*member) []*member {
	sharers := map[string][]*member{}
	all, _ := k.chosen(nil)
	for _, m := range all {
		s := m.definition()
		for _, id := range []string{s.PID, s.IPC} {
			if c, _, _ := m.now(); id != "" && c.alive() {
				sharers[id] = append(sharers[id], m)
			}
		}
	}
	return k.closure(members, func(m *member) []*member { return sharers[m.definition().ID()] })
}

// closure adds to members, each once, what more gives for each of them.
func (k *keeper) closure(members []*member, more func(*member) []*member) []*member {
	seen := map[*member]bool{}
	var all []*member
	for queue := members; len(queue) > 0; queue = queue[1:] {
		if m := queue[0]; !seen[m] {
			seen[m] = true
			all = append(all, m)
			queue = append(queue, more(m)...)
		}
	}
	return all
}

// endAll stops members, dependents before what they depend on, and leaves them
// in the state.
func (k *keeper) endAll(members []*member, state string) {
	byID := map[string]*member{}
	var list []*topology.Station
	for _, m := range members {
		s := m.definition()
		byID[s.ID()] = m
		list = append(list, s)
	}
	dependentsFirst(list, func(s *topology.Station) { byID[s.ID()].end(state) })
}

// dependentsFirst calls do for each station, independent ones at the same
// time, and for none before those that depend on it are done.
func dependentsFirst(list []*topology.Station, do func(*topology.Station)) {
	gone := map[string]chan struct{}{}
	dependents := map[string][]string{}
	for _, s := range list {
		gone[s.ID()] = make(chan struct{})
		for _, d := range s.DependsOn {
			dependents[d.Station] = append(dependents[d.Station], s.ID())
		}
	}
	var wg sync.WaitGroup
	for _, s := range list {
		wg.Go(func() {
			defer close(gone[s.ID()])
			for _, id := range dependents[s.ID()] {
				if c, ok := gone[id]; ok {
					<-c
				}
			}
			do(s)
		})
	}
	wg.Wait()
}
