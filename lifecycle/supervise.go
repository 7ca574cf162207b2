package lifecycle

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/topology"
)

// member is a station that the keeper looks after. From begin to its end a
// life of it runs: a goroutine that waits for what the station depends on,
// runs it, checks its health and starts it again as its policy says. What it
// has come to is in its state; all fields are guarded by the keeper's mutex.
type member struct {
	k       *keeper
	station *topology.Station
	state   *ContainerState
	changed chan struct{} // closed, and replaced, with each change of state
	failure error         // why it does not run, for whoever waits for it

	stop    context.CancelFunc // asks the life to end; nil without one
	done    chan struct{}      // closed when the life has ended
	after   string             // the state that a life which is asked to end comes to
	process containers.Process // nil unless it runs
	output  *collection
	master  int              // of its terminal, -1 without one
	oom     *native.OOMWatch // nil where nothing counts
	running bool             // between mindOOM and dropOOM
	redo    chan struct{}    // its definition has changed
	holds   int              // callers for whom it is paused; k.freezing guards it
	asked   time.Time        // until when it may end because a `down` that was killed has asked it to
}

// set changes a member's state and wakes who waits for it.
func (m *member) set(change func(c *ContainerState)) {
	m.k.mu.Lock()
	change(m.state)
	close(m.changed)
	m.changed = make(chan struct{})
	m.k.mu.Unlock()
	m.k.touch()
}

// now is a copy of the member's state and the channel of its next change.
func (m *member) now() (ContainerState, <-chan struct{}, error) {
	m.k.mu.Lock()
	defer m.k.mu.Unlock()
	return *m.state, m.changed, m.failure
}

func (m *member) definition() *topology.Station {
	m.k.mu.Lock()
	defer m.k.mu.Unlock()
	return m.station
}

func (m *member) container() string {
	m.k.mu.Lock()
	defer m.k.mu.Unlock()
	return m.state.Container
}

func (m *member) phase(p Phase, detail string, took time.Duration) {
	m.k.tell(Progress{Station: m.definition().ID(), Phase: p, Detail: detail, Took: took})
}

func (m *member) event(e Event) {
	e.Station = m.definition().ID()
	m.k.event(e)
}

// begin starts a life. The root is one prepared already, or nil; a process is
// one that runs already; restarts is how often its policy has started it.
func (m *member) begin(r *root, running containers.Process, restarts int) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	m.k.mu.Lock()
	m.stop, m.done, m.after, m.asked = cancel, done, Stopped, time.Time{}
	if m.k.retired && running == nil {
		cancel()
	}
	m.k.mu.Unlock()
	if running == nil {
		m.forgetPast(restarts)
	}
	go func() {
		defer close(done)
		defer cancel()
		m.live(ctx, r, running)
	}()
}

// forgetPast makes a member one whose life is about to begin: who depends on it
// waits for that, and does not judge by how its last life ended.
func (m *member) forgetPast(restarts int) {
	m.set(func(c *ContainerState) {
		*c = ContainerState{Container: c.Container, Station: c.Station, State: Waiting, Restarts: restarts}
		m.failure = nil
	})
}

// end asks the life to stop the station and waits until it has. The state is
// what it comes to: Stopped, or Waiting where it is started again at once, so
// that who waits for it goes on waiting.
func (m *member) end(state string) {
	m.k.mu.Lock()
	stop, done := m.stop, m.done
	m.after = state
	m.k.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
	m.set(func(c *ContainerState) {
		if c.State != Exited && c.State != Refused && c.State != Created {
			c.State = state
		}
	})
}

// stopped notes that the life ends because it was asked to.
func (m *member) stopped() {
	m.set(func(c *ContainerState) { c.State = m.after })
}

// live is one life: from the wait for dependencies to an end for good.
func (m *member) live(ctx context.Context, r *root, running containers.Process) {
	defer func() { discard([]*root{r}) }()
	if running == nil {
		began := time.Now()
		if err := m.k.await(ctx, m); err != nil {
			m.fail(ctx, err)
			return
		}
		if took := time.Since(began); took > time.Millisecond {
			m.phase(PhasePreparing, "", took)
		}
	}
	var pauses backoff
	for again := false; ; again = true {
		if again && m.k.awaitShared(ctx, m.definition()) != nil {
			m.stopped()
			m.event(Event{Kind: EventStopped})
			return
		}
		began := time.Now()
		e := m.run(ctx, r, running, again)
		r, running = nil, nil
		if !m.again(ctx, e) {
			return
		}
		select {
		case <-time.After(pauses.next(time.Since(began))):
		case <-ctx.Done():
			m.stopped()
			m.event(Event{Kind: EventStopped})
			return
		}
	}
}

// ending is how one run of a station came to its end.
type ending struct {
	exit   *containers.Exit // nil where its command never ran
	unwell bool             // ended for being unhealthy
	err    error            // that kept it from running
}

// run starts the station's command, or takes over one that runs, and returns
// when it has ended. Again says that its policy asks for it.
func (m *member) run(ctx context.Context, r *root, running containers.Process, again bool) ending {
	if running == nil {
		var err error
		if running, err = m.start(ctx, r, again); err != nil {
			return ending{err: err}
		}
	}
	m.mindOOM()
	e := m.watch(ctx, running)
	m.dropOOM()
	m.drain()
	return e
}

// start assembles the root where that is not done yet, checks its seal, and
// runs the startup command and the command. One whose seal does not match has
// not been restarted.
func (m *member) start(ctx context.Context, r *root, again bool) (_ containers.Process, err error) {
	made := madeFrom(m.definition())
	m.set(func(c *ContainerState) {
		*c = ContainerState{Container: c.Container, Station: c.Station, State: Starting, Made: made, Restarts: c.Restarts}
	})
	defer func() {
		if err != nil && r != nil {
			discard([]*root{r})
		}
	}()
	if r == nil {
		m.phase(PhasePreparing, "", 0)
		if r, err = m.k.newRoot(m); err != nil {
			return nil, err
		}
		if err = m.k.prepare(ctx, r); err == nil {
			err = checkSeals(ctx, []*root{r})
		}
	}
	if refused := new(IntegrityError); again && !errors.As(err, &refused) {
		m.set(func(c *ContainerState) { c.Restarts++ })
		m.event(Event{Kind: EventRestarted})
	}
	if err != nil {
		return nil, err
	}
	output, err := m.k.collect(r.spec.Name, r.station.Logging)
	if err != nil {
		return nil, err
	}
	defer output.release()
	if err := m.startUp(ctx, r); err != nil {
		return nil, err
	}
	began := time.Now()
	process, err := m.k.start(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := m.keepTerminal(output, process); err != nil {
		m.k.tell(Progress{Notice: err.Error()})
	}
	s := r.station
	m.k.mu.Lock()
	m.process, m.output = process, output
	if m.k.retired { // since it was born
		m.stop()
	}
	m.k.mu.Unlock()
	m.set(func(c *ContainerState) {
		c.State, c.Process, c.StartedAt, c.Made = Running, process.Ref(), time.Now(), madeFrom(s)
		c.OOMCount = kernelOOMs(process)
		if s.Healthcheck != nil {
			c.Health = healthStarting
		}
	})
	m.event(Event{Kind: EventStarted, Pid: process.Ref().Pid})
	if s.Healthcheck != nil {
		m.phase(PhaseStarting, "", time.Since(began))
	} else {
		m.phase(PhaseRunning, "", time.Since(began))
	}
	return process, nil
}

// startUp runs the station's startup command, if it has one, to its end.
func (m *member) startUp(ctx context.Context, r *root) error {
	if len(r.station.Startup) == 0 {
		return nil
	}
	m.phase(PhaseStartup, "", 0)
	process, err := r.container.RunBefore(ctx, r.station.Startup)
	if err != nil {
		return m.k.notExecuted(r, err)
	}
	stop := context.AfterFunc(ctx, func() { process.Signal(syscall.SIGKILL) })
	defer stop()
	exit, err := process.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		time.Sleep(10 * time.Millisecond) // its last words are on their way
		return &StationError{
			Container: r.spec.Name, Exit: &exit, Startup: true, Log: m.k.logTail(r.spec.Name),
		}
	}
	return nil
}

// watch looks after a running command until it has ended. It ends it when ctx
// does, or when it became unhealthy and is to be restarted then.
func (m *member) watch(ctx context.Context, process containers.Process) ending {
	exited := make(chan *containers.Exit, 1)
	go func() {
		exit, err := process.Wait()
		if err != nil {
			exit = containers.Exit{Code: -1, At: time.Now()}
		}
		exited <- &exit
	}()
	checks := m.newChecks(process)
	defer func() { checks.stop() }()
	for {
		select {
		case exit := <-exited:
			return ending{exit: exit}
		case <-ctx.Done():
			checks.stop()
			m.terminate(process, exited)
			return ending{exit: <-exited}
		case <-m.redo:
			checks.stop()
			checks = m.newChecks(process)
		case <-checks.due:
			checks.begin(ctx)
		case said := <-checks.results:
			if !checks.asked() {
				continue // redo is on its way
			}
			if checks.observe(said) == healthUnhealthy && checks.config.RestartUnhealthy {
				checks.stop()
				m.terminate(process, exited)
				return ending{exit: <-exited, unwell: true}
			}
		}
	}
}

// drain waits until the last output of an ended command is in the log.
func (m *member) drain() {
	m.k.mu.Lock()
	output := m.output
	m.process, m.output = nil, nil
	m.k.mu.Unlock()
	defer m.closeTerminal()
	if output == nil {
		return
	}
	output.hangUp()
	select {
	case <-output.drained:
	case <-time.After(time.Second): // a process outside the station holds its output open
		output.abandon()
	}
}

// again decides, after an end or a failed start, whether there is a next try.
func (m *member) again(ctx context.Context, e ending) bool {
	exit, station := e.exit, new(StationError)
	if errors.As(e.err, &station) {
		exit = station.Exit
	}
	settle := func(state string) {
		m.set(func(c *ContainerState) {
			c.State, c.Exit, c.EndedAt, c.Health = state, exit, time.Now(), ""
			if m.failure = e.err; e.err != nil {
				c.Reason = e.err.Error()
			}
		})
		select {
		case m.k.ended <- struct{}{}:
		default:
		}
	}
	if ctx.Err() != nil {
		e.err = nil // that it was stopped
		if exit != nil {
			exit.OOM = false // if there was one, it was another's
		}
		settle(m.after)
		m.event(ended(EventStopped, e.exit))
		m.phase(PhaseStopped, "", 0)
		return false
	}
	if refused := new(IntegrityError); errors.As(e.err, &refused) {
		settle(Refused)
		m.event(Event{Kind: EventIntegrity, Detail: e.err.Error()})
		m.k.logRefusal(refused)
		m.phase(PhaseFailed, "", 0)
		return false
	}
	m.k.mu.Lock()
	retired, asked := m.k.retired, time.Now().Before(m.asked)
	m.asked = time.Time{}
	m.k.mu.Unlock()
	switch {
	case e.err != nil:
		m.event(Event{Kind: EventFailed, Detail: e.err.Error()})
	case retired:
		m.event(ended(EventStopped, exit))
	default:
		m.event(ended(EventDied, exit))
	}
	now, _, _ := m.now()
	if !retired && (e.unwell || asked || shouldRestart(m.definition().Restart, exit, now.Restarts)) {
		settle(Restarting)
		return true
	}
	settle(Exited)
	if e.err != nil || exit.Code != 0 {
		m.phase(PhaseFailed, "", 0)
	} else {
		m.phase(PhaseStopped, "its work is done", 0)
	}
	return false
}

// logRefusal notes a refused start where refused launches are noted too. What
// can't be written there is an event at least.
func (k *keeper) logRefusal(refused *IntegrityError) {
	k.mu.Lock()
	intent := k.intent
	k.mu.Unlock()
	_ = logIntegrity(intent.Topology, refused, intent.UID, intent.GID)
}

// fail notes why the station does not run, for good.
func (m *member) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		m.stopped()
		m.phase(PhaseStopped, "", 0)
		return
	}
	state, kind := Exited, EventFailed
	if refused := new(IntegrityError); errors.As(err, &refused) {
		state, kind = Refused, EventIntegrity
	}
	m.set(func(c *ContainerState) {
		c.State, c.Reason, c.EndedAt = state, err.Error(), time.Now()
		m.failure = err
	})
	m.event(Event{Kind: kind, Detail: err.Error()})
	m.phase(PhaseFailed, "", 0)
}

func ended(kind EventKind, exit *containers.Exit) Event {
	e := Event{Kind: kind}
	if exit != nil && exit.Code >= 0 {
		e.Code, e.Signal, e.OOM = &exit.Code, exit.Signal, exit.OOM
	}
	return e
}

// terminate sends the station's stop signal, and SIGKILL after its grace
// period. A process 1 that has no handler for the signal never gets it: no use
// waiting for that.
func (m *member) terminate(process containers.Process, exited chan *containers.Exit) {
	s := m.definition()
	m.phase(PhaseStopping, "", 0)
	if now, _, _ := m.now(); now.State == Paused {
		native.Freeze(m.k.cgroup(now.Container), false)
	}
	sig := syscall.Signal(s.Signal())
	if !native.IgnoresSignal(process.Ref(), sig) && process.Signal(sig) == nil {
		grace := time.NewTimer(s.StopGracePeriod)
		defer grace.Stop()
		select {
		case exit := <-exited:
			exited <- exit
			return
		case <-grace.C:
		}
	}
	if err := process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		// Its end is waited for, so there must be one.
		native.KillCgroup(context.Background(), m.k.cgroup(m.container()))
	}
}
