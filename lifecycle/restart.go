package lifecycle

import (
	"time"

	"platelayer/containers"
	"platelayer/topology"
)

// backoff gives the pauses between a station's restarts, as Docker's do: a
// station that ends at once does not keep the machine busy. Its zero value is
// ready.
type backoff struct{ pause time.Duration }

// next is the pause before the next start of a station that ran for ran.
func (b *backoff) next(ran time.Duration) time.Duration {
	const (
		first   = 100 * time.Millisecond
		longest = time.Minute
		settled = 10 * time.Second
	)
	if ran >= settled || b.pause == 0 {
		b.pause = first
	} else {
		b.pause = min(2*b.pause, longest)
	}
	return b.pause
}

// shouldRestart tells whether a station that ended by itself is started again.
// An end that nobody saw, nil or code -1, is a failure. restarts counts those
// since somebody last started the station.
func shouldRestart(p topology.Restart, exit *containers.Exit, restarts int) bool {
	switch p.Policy {
	case topology.RestartAlways, topology.RestartUnlessStopped:
		return true
	case topology.RestartOnFailure:
		failed := exit == nil || exit.Code != 0
		return failed && (p.MaxRetries <= 0 || restarts < p.MaxRetries)
	}
	return false
}
