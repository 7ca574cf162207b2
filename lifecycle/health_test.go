package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"platelayer/topology"
)

var healthEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// checks runs the keeper's loop with checks that take took: result gives that
// of a check that begins at an offset from the start. It returns when the
// states after "starting" began, until the end.
func checks(c topology.Healthcheck, took, end time.Duration, result func(began time.Duration) bool) (states []string) {
	h := newHealth(c, healthEpoch)
	for now := healthEpoch; ; {
		now = now.Add(h.next(now))
		began := now.Sub(healthEpoch)
		now = now.Add(took)
		if now.Sub(healthEpoch) > end {
			return states
		}
		if h.observe(result(began), now) {
			states = append(states, fmt.Sprintf("%s at %v", h.state(), now.Sub(healthEpoch).Round(time.Second)))
		}
	}
}

func TestHealth(t *testing.T) {
	const s = time.Second
	docker := topology.Healthcheck{Interval: 30 * s, Timeout: 30 * s, Retries: 3, StartInterval: 5 * s}
	with := func(change func(*topology.Healthcheck)) topology.Healthcheck {
		c := docker
		change(&c)
		return c
	}
	once := with(func(c *topology.Healthcheck) { c.Retries = 1 })
	patient := with(func(c *topology.Healthcheck) { c.StartPeriod = time.Minute })
	between := func(from, to time.Duration) func(time.Duration) bool {
		return func(at time.Duration) bool { return at >= from && at < to }
	}
	never, always := between(0, 0), between(0, time.Hour)
	for _, c := range []struct {
		name      string
		check     topology.Healthcheck
		took, end time.Duration
		result    func(time.Duration) bool
		want      string
	}{
		{"well", docker, 0, time.Hour - 1, always, "[healthy at 0s]"},
		{"well with zeros", topology.Healthcheck{}, 0, time.Hour - 1, always, "[healthy at 0s]"},
		{"well soon", docker, 0, time.Hour - 1, between(2*s, time.Hour), "[healthy at 3s]"},
		// Docker's checks would be at 30 s, 60 s and 90 s; ours are 5 s apart.
		{"never", docker, 0, time.Hour, never, "[unhealthy at 1m33s]"},
		{"never, with zeros", topology.Healthcheck{}, 0, time.Hour, never, "[unhealthy at 1m33s]"},
		{"never, retries 1", once, 0, time.Hour, never, "[unhealthy at 33s]"},
		{"early failures count for nothing", once, 0, time.Hour - 1, between(29*s, time.Hour), "[healthy at 33s]"},
		// Docker's would end at 35 s, 70 s and 105 s.
		{"never, slow", docker, 5 * s, time.Hour, never, "[unhealthy at 1m53s]"},
		{"never, patient", patient, 0, time.Hour, never, "[unhealthy at 2m3s]"},
		{"patience ends with success", patient, 0, 125 * s, between(1*s, 2*s), "[healthy at 1s unhealthy at 1m31s]"},
		{"patient for longer than it lasts", with(func(c *topology.Healthcheck) { c.StartPeriod = 2 * time.Hour; c.Retries = 1 }),
			0, time.Hour, never, "[]"},
		{"fails later", docker, 0, 10 * time.Minute, between(0, 100*s), "[healthy at 0s unhealthy at 3m0s]"},
		{"fails later, retries 1", once, 0, 10 * time.Minute, between(0, 100*s), "[healthy at 0s unhealthy at 2m0s]"},
		{"two failures are not three", docker, 0, time.Hour - 1,
			func(at time.Duration) bool { return at%(90*s) < 30*s }, "[healthy at 0s]"},
		{"recovers", docker, 0, time.Hour - 1, func(at time.Duration) bool { return !between(10*s, 200*s)(at) },
			"[healthy at 0s unhealthy at 1m30s healthy at 3m30s]"},
	} {
		if got := fmt.Sprint(checks(c.check, c.took, c.end, c.result)); got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
	}
}

func TestHealthPauses(t *testing.T) {
	const ms = time.Millisecond
	h := newHealth(topology.Healthcheck{Interval: 40 * ms, StartInterval: 20 * ms, Retries: 1, StartPeriod: time.Hour}, healthEpoch)
	now := healthEpoch
	for i, want := range []time.Duration{10 * ms, 15 * ms, 20 * ms, 20 * ms} {
		if got := h.next(now); got != want {
			t.Errorf("pause %d is %v, not %v", i, got, want)
		}
		now = now.Add(h.next(now))
		h.observe(false, now)
	}
	h.observe(true, now)
	if got := h.next(now); got != 40*ms {
		t.Errorf("healthy: %v", got)
	}
	if got := h.next(now.Add(30 * ms)); got != 10*ms {
		t.Errorf("30 ms later: %v", got)
	}
	if got := h.next(now.Add(time.Hour)); got != 0 {
		t.Errorf("late: %v", got)
	}
	if got := h.next(now.Add(-time.Hour)); got != 40*ms {
		t.Errorf("after the clock was put back: %v", got)
	}
	h.observe(false, now)
	if got := h.next(now); h.state() != healthUnhealthy || got != 40*ms {
		t.Errorf("%s: %v", h.state(), got)
	}
}

// dockerUnhealthy is when Docker (monitor and handleProbeResult of
// daemon/health.go) finds a station unhealthy whose checks all fail.
func dockerUnhealthy(c topology.Healthcheck, took time.Duration) time.Duration {
	now, streak := time.Duration(0), 0
	for {
		if now < c.StartPeriod {
			now += c.StartInterval
		} else {
			now += c.Interval
		}
		if now >= c.StartPeriod {
			streak++
		}
		now += took
		if streak >= c.Retries {
			return now
		}
	}
}

// TestUnhealthyLikeDocker: never sooner than Docker's, and at most one check
// and one pause later.
func TestUnhealthyLikeDocker(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) }
	for range 2000 {
		c := topology.Healthcheck{
			Interval: 1 + upTo(time.Minute), StartInterval: 1 + upTo(10*time.Second), StartPeriod: upTo(2 * time.Minute),
			Timeout: time.Minute, Retries: 1 + random.IntN(4),
		}
		c.Interval, c.StartInterval = c.Interval.Round(time.Millisecond)+time.Millisecond, c.StartInterval.Round(time.Millisecond)+time.Millisecond
		took := upTo(c.Timeout)
		h, now := newHealth(c, healthEpoch), healthEpoch
		for h.state() == healthStarting {
			now = now.Add(h.next(now)).Add(took)
			h.observe(false, now)
		}
		got, want := now.Sub(healthEpoch), dockerUnhealthy(c, took)
		if latest := want + took + min(c.Interval, c.StartInterval); got < want || got > latest {
			t.Fatalf("%+v, checks of %v: unhealthy at %v, Docker's at %v", c, took, got, want)
		}
	}
}
