package lifecycle

import (
	"time"

	"platelayer/containers"
	"platelayer/containers/native"
)

// The kernel kills any process of a station's for lack of memory: its first, a
// child, what was executed in it. It counts them, and wakes who watches, so a
// station that has enough costs nothing.

// kernelOOMs is the kernel's count when a process began.
func kernelOOMs(p containers.Process) uint64 {
	if counter, ok := p.(containers.OOMCounter); ok {
		return counter.OOMsBefore()
	}
	return 0
}

// mindOOM tells of the kills of a run from now on, until dropOOM.
func (m *member) mindOOM() {
	m.k.mu.Lock()
	m.running = true
	m.k.mu.Unlock()
	m.watchOOM()
}

// watchOOM waits for kills where the kernel tells them: not of a station that
// has no limit yet.
func (m *member) watchOOM() {
	watch, err := native.WatchOOM(m.k.cgroup(m.container()))
	if watch == nil || err != nil {
		return // they are counted when it ends
	}
	m.k.mu.Lock()
	wanted := m.running && m.oom == nil
	if wanted {
		m.oom = watch
	}
	m.k.mu.Unlock()
	if !wanted {
		watch.Close()
		return
	}
	go func() {
		now, _, _ := m.now()
		for known := now.OOMCount; ; {
			if known, err = watch.Wait(known); err != nil {
				return
			}
			m.countOOM(watch)
			time.Sleep(time.Second) // together: one that restarts what is killed makes many
		}
	}()
}

// dropOOM tells of the last kills of a run.
func (m *member) dropOOM() {
	m.k.mu.Lock()
	watch := m.oom
	m.k.mu.Unlock()
	m.countOOM(watch)
	m.k.mu.Lock()
	m.oom, m.running = nil, false
	m.k.mu.Unlock()
	if watch != nil {
		watch.Close()
	}
}

// countOOM tells of the kills that have not been told yet; a watch of an earlier
// run has nothing to tell.
func (m *member) countOOM(watch *native.OOMWatch) {
	now := native.OOMKills(m.k.cgroup(m.container()))
	m.k.mu.Lock()
	killed := int(now) - int(m.state.OOMCount)
	if watch != m.oom {
		killed = 0
	}
	if killed > 0 {
		m.state.OOMCount = now
		m.state.OOMKills += killed
	}
	m.k.mu.Unlock()
	if killed > 0 {
		m.event(Event{Kind: EventOOM, Killed: killed}) // which has the state written too
	}
}
