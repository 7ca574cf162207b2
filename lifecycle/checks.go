package lifecycle

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"syscall"
	"time"

	"platelayer/containers"
	"platelayer/topology"
)

// checkup is the health checks of one running station; without a health check
// nothing is ever due.
type checkup struct {
	m       *member
	process containers.Process
	config  *topology.Healthcheck
	health  *health
	timer   *time.Timer
	due     <-chan time.Time
	results chan checked
	cancel  context.CancelFunc
	began   time.Time
}

// checked is what one check came to.
type checked struct {
	ok   bool
	said string
}

func (m *member) newChecks(process containers.Process) *checkup {
	c := &checkup{m: m, process: process, config: m.definition().Healthcheck, results: make(chan checked, 1), began: time.Now()}
	if c.config == nil {
		m.set(func(s *ContainerState) { s.Health, s.HealthSaid = "", "" })
		return c
	}
	c.health = newHealth(*c.config, c.began)
	switch now, _, _ := m.now(); now.Health {
	case "":
		m.set(func(s *ContainerState) { s.Health = healthStarting })
	case healthHealthy: // adopted: one failed check changes nothing yet
		c.health.observe(true, c.began)
	}
	c.timer = time.NewTimer(c.health.next(c.began))
	c.due = c.timer.C
	return c
}

// asked tells whether the file still asks for these checks: an edit may have
// changed them while one was under way.
func (c *checkup) asked() bool { return reflect.DeepEqual(c.m.definition().Healthcheck, c.config) }

// stop ends a check under way; its result goes nowhere.
func (c *checkup) stop() {
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.cancel != nil {
		c.cancel()
	}
	c.due, c.results = nil, nil
}

// begin runs one check. The next is due after it has been observed.
func (c *checkup) begin(ctx context.Context) {
	if now, _, _ := c.m.now(); now.State == Paused {
		c.timer.Reset(c.config.Interval)
		return
	}
	ctx, c.cancel = context.WithTimeout(ctx, c.config.Timeout)
	results := c.results
	go func() {
		ok, said := c.m.check(ctx, c.process.Ref(), c.config)
		results <- checked{ok, said}
	}()
}

// observe takes a result in and gives the new state of health where it has
// changed, otherwise "".
func (c *checkup) observe(r checked) string {
	c.cancel()
	now := time.Now()
	state, _, _ := c.m.now()
	changed := false
	if state.State != Paused {
		changed = c.health.observe(r.ok, now)
	}
	pause := c.health.next(now)
	if changed && c.health.state() == healthHealthy {
		// Stations that start together are not checked together for ever.
		pause = pause/2 + rand.N(pause/2+1)
	}
	c.timer.Reset(pause)
	said := ""
	if !r.ok {
		said = r.said
	}
	if !changed && state.Health == c.health.state() && said == state.HealthSaid {
		return ""
	}
	took := now.Sub(c.began)
	c.m.set(func(s *ContainerState) { s.Health, s.HealthSaid = c.health.state(), said })
	if state.Health == c.health.state() {
		return ""
	}
	switch c.health.state() {
	case healthHealthy:
		c.m.event(Event{Kind: EventHealthy})
		c.m.phase(PhaseHealthy, "", took)
	case healthUnhealthy:
		c.m.event(Event{Kind: EventUnhealthy, Detail: said})
		c.m.phase(PhaseFailed, "unhealthy", took)
	}
	return c.health.state()
}

// check runs a health check's command inside the station. What it says is kept
// up to some length.
func (m *member) check(ctx context.Context, ref containers.ProcessRef, config *topology.Healthcheck) (ok bool, said string) {
	const most = 4096 // bytes, as docker
	ours, theirs, err := os.Pipe()
	if err != nil {
		return false, err.Error()
	}
	defer ours.Close()
	s := m.definition()
	now, _, _ := m.now()
	m.k.mu.Lock()
	t := m.k.intent.Topology
	m.k.mu.Unlock()
	spec, err := execSpec(cgroup(m.k.name), &now, t, s)
	if err != nil {
		theirs.Close()
		return false, err.Error()
	}
	spec.Container, spec.Args, spec.Stdout, spec.Stderr = ref, config.Test, theirs, theirs
	process, err := m.k.engine.Exec(ctx, spec)
	theirs.Close()
	if err != nil {
		return false, err.Error()
	}
	stop := context.AfterFunc(ctx, func() { kill(process) })
	defer stop()
	text := make(chan string, 1)
	go func() {
		var b strings.Builder
		buffer := make([]byte, most)
		for {
			n, err := ours.Read(buffer)
			if room := most - b.Len(); room > 0 {
				b.Write(buffer[:min(n, room)])
			}
			if err != nil {
				break
			}
		}
		text <- strings.TrimSpace(b.String())
	}()
	exit, err := process.Wait()
	// What it left running may hold the pipe for ever.
	ours.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	said = <-text
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return false, strings.TrimSpace("took longer than " + config.Timeout.String() + " " + said)
	case err != nil:
		return false, err.Error()
	}
	return exit.Code == 0, said
}

// kill ends an executed command, and where the kernel can, its process group.
func kill(p containers.Process) {
	if g, ok := p.(containers.GroupKiller); ok && g.KillGroup() == nil {
		return
	}
	p.Signal(syscall.SIGKILL)
}
