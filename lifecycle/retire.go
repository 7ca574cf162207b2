package lifecycle

import (
	"time"

	"platelayer/containers/native"
)

// retire leaves stations alone from now on: `down` stops those that run, which
// it finds in the state; none starts any more, and whatever ends stays ended.
func (k *keeper) retire() error {
	k.mu.Lock()
	k.retired, k.state.Retired = true, true
	for _, m := range k.members {
		if m.stop != nil && m.process == nil {
			m.stop()
		}
	}
	k.mu.Unlock()
	return k.flush()
}

// unretire ends what a `down` began that was killed: whoever asks for something
// now holds the topology's lock. Stations that it has asked to stop and that are
// still at it are started again when they have ended.
func (k *keeper) unretire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.state.Retired {
		return
	}
	if b := k.state.Backbone; k.retired && b.State == Exited {
		go k.reviveBackbone(0)
	}
	k.retired, k.state.Retired = false, false
	for _, m := range k.members {
		if m.process != nil {
			m.asked = time.Now().Add(m.station.StopGracePeriod)
		}
	}
}

// awaitKilled waits for the processes of a topology that were killed a moment
// ago and have not ended yet, where a `down` may have been cut off or the keeper
// lost: what runs can be told only then. The lock is held.
func awaitKilled(l Layout, name string) {
	state, err := readState(l, name)
	if err != nil {
		return // look tells
	}
	const most = 5 * time.Second
	for deadline := time.Now().Add(most); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		kept := !state.Retired && native.Alive(state.Keeper) && !native.Ending(state.Keeper)
		if kept || !state.any(native.Ending) {
			return
		}
	}
}

// drain waits until every life has ended, its last output written.
func (k *keeper) drain(gone <-chan struct{}) {
	k.mu.Lock()
	var lives []chan struct{}
	for _, m := range k.members {
		if m.done != nil {
			lives = append(lives, m.done)
		}
	}
	k.mu.Unlock()
	for _, done := range lives {
		select {
		case <-done:
		case <-gone:
			return
		}
	}
}
