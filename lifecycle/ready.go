package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"platelayer/containers/native"
	"platelayer/topology"
)

// launchTries bounds how often a station that ends again and again is waited
// for, though its policy restarts it for ever.
const launchTries = 5

// proof is how long a station has to stay up that ended while it was waited for
// and was started again by its policy.
const proof = time.Second

// ready is the condition that `up` waits for: healthy where there is a health
// check, started otherwise; one that has done its work is ready too.
const ready = "ready"

// ill is why an unhealthy station is not ready.
const ill = "it is unhealthy"

// verdict tells whether a station is as a condition asks, or why it never will
// be.
func verdict(c *ContainerState, condition string) (met bool, never string) {
	finished := c.State == Exited && c.Exit != nil && c.Exit.Code == 0 && c.Reason == ""
	switch c.State {
	case Created:
		return false, "nobody has started it"
	case Exited:
		switch {
		case finished && condition != topology.Healthy:
			return true, ""
		case finished:
			return false, "it ended before it was healthy"
		}
		return false, "it ended"
	case Stopped:
		return false, "it is stopped"
	case Refused:
		return false, "its seal does not match"
	case Restarting:
		if c.Restarts >= launchTries {
			return false, fmt.Sprintf("it ended %d times", c.Restarts+1)
		}
		return false, ""
	case Running, Paused:
	default:
		return false, ""
	}
	switch {
	case condition == topology.CompletedSuccessfully:
		return false, ""
	case condition == ready && c.State == Paused: // on purpose
		return true, ""
	case condition == topology.Started, c.Health == "" && condition == ready, c.Health == healthHealthy:
		return true, ""
	case c.Health == healthUnhealthy:
		return false, ill
	}
	return false, ""
}

// reach waits until the member is as the condition asks. The error says why it
// never will be, or is ctx's.
func (m *member) reach(ctx context.Context, condition string) error {
	for {
		c, changed, failure := m.now()
		met, never := verdict(&c, condition)
		if check := m.definition().Healthcheck; never == ill && check != nil && check.RestartUnhealthy {
			never = "" // it is started again
		}
		switch {
		case met:
			return nil
		case never != "":
			return m.why(&c, failure, never)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// why is the error of a member that does not become what is asked.
func (m *member) why(c *ContainerState, failure error, never string) error {
	e := &StationError{Container: c.Container, Log: m.k.logTail(c.Container)}
	switch {
	case failure != nil && (typed(failure) || Unsupported(failure)):
		return failure
	case failure != nil:
		e.Message = "did not start: " + failure.Error()
	case c.Health == healthUnhealthy:
		e.Message = "is unhealthy"
		if c.HealthSaid != "" {
			e.Message += ": its health check said: " + Shortened(c.HealthSaid)
		}
	case c.Exit != nil && c.Exit.Code != 0:
		e.Exit = c.Exit
		e.While = "while the topology was starting"
		if c.Restarts > 0 {
			e.While += fmt.Sprintf(", for the %s time", ordinal(c.Restarts+1))
		}
	default:
		e.Message = "is not ready: " + never
	}
	return e
}

// typed tells whether an error says by its type what became of a station.
func typed(err error) bool {
	return errors.As(err, new(*StationError)) || errors.As(err, new(*IntegrityError)) || errors.As(err, new(*DependencyError)) ||
		errors.As(err, new(*TimeoutError))
}

func ordinal(n int) string {
	suffix := "th"
	if n/10%10 != 1 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprint(n) + suffix
}

// await waits for all that a member depends on.
func (k *keeper) await(ctx context.Context, m *member) error {
	for _, d := range m.definition().DependsOn {
		on := k.member(d.Station)
		if on == nil {
			continue
		}
		if now, _, _ := on.now(); !metNow(&now, d.Condition) {
			m.phase(PhaseWaiting, "for "+d.Station+" "+wish(d.Condition), 0)
		}
		if err := on.reach(ctx, d.Condition); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if d.Optional {
				m.k.tell(Progress{Notice: fmt.Sprintf("%s starts without %s: %v", m.definition().ID(), d.Station, err)})
			} else {
				return &DependencyError{Station: m.definition().ID(), On: d.Station, Wish: wish(d.Condition), Err: err}
			}
		}
	}
	return nil
}

// awaitShared waits until those run whose namespaces a station shares: without
// them no try of it can succeed. The error is that of ctx.
func (k *keeper) awaitShared(ctx context.Context, s *topology.Station) error {
	const pause = 100 * time.Millisecond
	for _, id := range []string{s.PID, s.IPC} {
		for id != "" && ctx.Err() == nil {
			other := k.member(id)
			if other == nil {
				break // the start tells
			}
			if c, _, _ := other.now(); c.alive() {
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
	return ctx.Err()
}

func metNow(c *ContainerState, condition string) bool {
	met, _ := verdict(c, condition)
	return met
}

func wish(condition string) string {
	switch condition {
	case topology.Healthy:
		return "to be healthy"
	case topology.CompletedSuccessfully:
		return "to complete"
	}
	return "to start"
}

// DependencyError is a station that does not start because another does not
// become what it depends on.
type DependencyError struct {
	Station, On, Wish string
	Err               error
}

func (e *DependencyError) Error() string {
	return fmt.Sprintf("station %q waited for %q %s: %v", e.Station, e.On, e.Wish, e.Err)
}

func (e *DependencyError) Unwrap() error { return e.Err }

// allReady waits until every member is ready and has stayed so for a moment.
// The first that never will be ends it.
func (k *keeper) allReady(ctx context.Context, members []*member) error {
	optional := k.optional()
	members = slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return optional[m.definition().ID()] })
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, m := range members {
		go func() {
			if err := m.reach(ctx, ready); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		}()
	}
	for _, m := range members {
		if err := m.reach(ctx, ready); err != nil {
			return k.unready(context.Cause(ctx), err, members)
		}
	}
	if err := k.settle(ctx, members); err != nil {
		return k.unready(context.Cause(ctx), err, members)
	}
	return nil
}

// comeUp is allReady where the topology goes on without one that fails: it lets
// the others start that are about to, so that the caller, who is told that all
// else is as asked for, finds it so. What takes longer (a startup command, a
// dependency's health) goes on behind it.
func (k *keeper) comeUp(ctx context.Context, members []*member) error {
	err := k.allReady(ctx, members)
	if err == nil {
		return nil
	}
	const most = 3 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for _, m := range members {
		// What keeps one from starting is not what the caller failed with.
		_ = m.reach(ctx, topology.Started)
	}
	return err
}

// optional are the stations that others depend on, all of which can do without.
func (k *keeper) optional() map[string]bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	optional, needed := map[string]bool{}, map[string]bool{}
	for _, m := range k.members {
		for _, d := range m.station.DependsOn {
			if d.Optional {
				optional[d.Station] = true
			} else {
				needed[d.Station] = true
			}
		}
	}
	maps.DeleteFunc(optional, func(id string, _ bool) bool { return needed[id] })
	return optional
}

// unready is the error of members that did not become ready: of the station
// that is the cause, not of those that waited for it.
func (k *keeper) unready(cause, err error, members []*member) error {
	if cause != nil {
		err = cause
	}
	if late := new(TimeoutError); errors.As(err, &late) {
		for _, m := range members {
			if c, _, _ := m.now(); !metNow(&c, ready) {
				text := c.Station + ": " + c.State
				if c.Health != "" {
					text += ", " + c.Health
				}
				if c.HealthSaid != "" {
					text += ": " + Shortened(c.HealthSaid)
				}
				late.Waiting = append(late.Waiting, text)
			}
		}
		return late
	}
	if waited := new(DependencyError); errors.As(err, &waited) {
		return waited.Err
	}
	return err
}

// settle gives commands that fail at once the time to do so: most of them have
// ended before the last station started, the last one itself has not. On a
// machine with much to do a command may not even have begun by then.
func (k *keeper) settle(ctx context.Context, members []*member) error {
	const quiet, busiest = 30 * time.Millisecond, time.Second
	began := time.Now()
	for {
		calm := false
		select {
		case <-k.ended:
			time.Sleep(10 * time.Millisecond) // others that end with it
		case <-time.After(quiet):
			calm = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		busy := time.Since(began) < busiest
		var problems []error
		for _, m := range members {
			c, _, failure := m.now()
			met, never := verdict(&c, ready)
			// One that has ended without being noted is about to be.
			proven := !c.started() || c.alive() && (c.Restarts == 0 || time.Since(c.StartedAt) > proof)
			calm = calm && met && proven && !(busy && native.Busy(c.Process))
			if never != "" {
				problems = append(problems, m.why(&c, failure, never))
			}
		}
		if len(problems) > 0 {
			return errors.Join(problems...)
		}
		if calm {
			return nil
		}
	}
}
