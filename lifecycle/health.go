package lifecycle

import (
	"cmp"
	"time"

	"platelayer/topology"
)

// States of a station with a healthcheck, in Docker's words.
const (
	healthStarting  = "starting"
	healthHealthy   = "healthy"
	healthUnhealthy = "unhealthy"
)

// health decides how a station is from the results of its checks, as Docker
// does, but finds it healthy sooner. Docker begins its first check one interval
// after the start; ours begin at once and close together until one succeeds.
//
// The early ones must not make a station unhealthy sooner than Docker's would.
// As long as none has succeeded, Docker's, which are fewer, would have failed
// too, so health plays them: when they would begin and end if each took as long
// as our last. A failure of ours counts where it stands for one of Docker's
// that has ended and that began after the start period.
type health struct {
	check   topology.Healthcheck
	started time.Time
	status  string
	streak  int           // failures in a row that count
	last    time.Time     // when the last check ended; at first, the start
	pause   time.Duration // from last to the next check
	played  time.Time     // when Docker's next check would begin
}

// newHealth begins with a station that started at started. Zero times and
// retries are Docker's defaults.
func newHealth(c topology.Healthcheck, started time.Time) *health {
	c.Interval = cmp.Or(c.Interval, 30*time.Second)
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.StartInterval = cmp.Or(c.StartInterval, 5*time.Second)
	c.Retries = cmp.Or(c.Retries, 3)
	h := &health{check: c, started: started, status: healthStarting, last: started}
	h.pause = min(10*time.Millisecond, h.longestEarly())
	h.played = started.Add(h.docker(started))
	return h
}

// state is "starting", "healthy" or "unhealthy".
func (h *health) state() string { return h.status }

// next is how long to wait at now, which is not before the end of the last
// check, until the next one begins.
func (h *health) next(now time.Time) time.Duration {
	return min(max(h.last.Add(h.pause).Sub(now), 0), h.pause)
}

// observe takes the result of a check that ended at at, and tells whether the
// state changed.
func (h *health) observe(ok bool, at time.Time) (changed bool) {
	before := h.status
	switch {
	case ok:
		h.status, h.streak = healthHealthy, 0
	case h.counts(at):
		h.streak++
		if h.streak >= h.check.Retries {
			h.status = healthUnhealthy
		}
	}
	h.last = at
	if h.status == healthStarting {
		h.pause = min(h.pause+h.pause/2, h.longestEarly())
	} else {
		h.pause = h.check.Interval
	}
	return h.status != before
}

// counts tells whether a failed check that ended at at counts.
func (h *health) counts(at time.Time) bool {
	if h.status != healthStarting {
		return true
	}
	took := max(at.Sub(h.last.Add(h.pause)), 0)
	began, ended := h.played, h.played.Add(min(took, h.check.Timeout))
	if ended.After(at) {
		return false
	}
	h.played = ended.Add(h.docker(ended))
	return !began.Before(h.started.Add(h.check.StartPeriod))
}

// docker is Docker's pause after at while a station is starting.
func (h *health) docker(at time.Time) time.Duration {
	if at.Before(h.started.Add(h.check.StartPeriod)) {
		return h.check.StartInterval
	}
	return h.check.Interval
}

func (h *health) longestEarly() time.Duration {
	return min(h.check.StartInterval, h.check.Interval)
}
