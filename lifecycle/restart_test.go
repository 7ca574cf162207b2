package lifecycle

import (
	"slices"
	"testing"
	"time"

	"platelayer/containers"
	"platelayer/topology"
)

func TestBackoff(t *testing.T) {
	const ms = time.Millisecond
	var b backoff
	var got []time.Duration
	for range 12 {
		got = append(got, b.next(10*time.Second-1))
	}
	want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 25600 * ms, 51200 * ms,
		time.Minute, time.Minute}
	if !slices.Equal(got, want) {
		t.Errorf("pauses %v, not %v", got, want)
	}
	if p := b.next(10 * time.Second); p != 100*ms {
		t.Errorf("%v after a long run", p)
	}
	if p := b.next(0); p != 200*ms {
		t.Errorf("%v after the reset", p)
	}
}

func TestShouldRestart(t *testing.T) {
	exit := func(code int) *containers.Exit { return &containers.Exit{Code: code} }
	for _, c := range []struct {
		policy   string
		max      int
		exit     *containers.Exit
		restarts int
		want     bool
	}{
		{"", 0, exit(1), 0, false},
		{topology.RestartNo, 0, exit(1), 0, false},
		{topology.RestartNo, 0, nil, 0, false},
		{topology.RestartAlways, 0, exit(0), 1000, true},
		{topology.RestartAlways, 0, nil, 0, true},
		{topology.RestartUnlessStopped, 0, exit(0), 1000, true},
		{topology.RestartOnFailure, 0, exit(0), 0, false},
		{topology.RestartOnFailure, 0, &containers.Exit{OOM: true}, 0, false}, // another process of it was killed
		{topology.RestartOnFailure, 0, exit(137), 1000, true},
		{topology.RestartOnFailure, 0, exit(-1), 0, true},
		{topology.RestartOnFailure, 0, nil, 0, true},
		{topology.RestartOnFailure, 2, exit(1), 1, true},
		{topology.RestartOnFailure, 2, exit(1), 2, false},
		{topology.RestartOnFailure, 2, nil, 2, false},
		{topology.RestartOnFailure, 2, exit(0), 0, false},
	} {
		p := topology.Restart{Policy: c.policy, MaxRetries: c.max}
		if got := shouldRestart(p, c.exit, c.restarts); got != c.want {
			t.Errorf("%+v, %+v, %d restarts: %v", p, c.exit, c.restarts, got)
		}
	}
}
