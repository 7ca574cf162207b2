package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"platelayer/backbone"
	"platelayer/containers"
	"platelayer/containers/native"
)

// A station with tty: true writes to a terminal, of which the keeper has the
// other end, the master. A terminal whose last master closes hangs its station
// up: the backbone, which outlives the keeper, holds a duplicate, and the next
// keeper goes on reading from that. Meanwhile what a station writes beyond the
// terminal's buffer waits. Masters are descriptors here: Go's poller would wake
// at each write to an os.File, beside the logs', which reads.

// keepTerminal logs a started station's terminal, if it has one, and has the
// backbone hold it.
func (m *member) keepTerminal(output *collection, process containers.Process) error {
	t, ok := process.(containers.Terminal)
	if !ok || t.Terminal() == nil {
		return nil
	}
	master := t.Terminal()
	defer master.Close()
	name, talk, err := m.useTerminal(master)
	if err != nil {
		return err
	}
	if talk != nil {
		err = talk.Hold(name, master) // without one: giveTerminals
	}
	return errors.Join(err, output.terminal(master))
}

// useTerminal makes a duplicate of a master the member's, which drain closes.
func (m *member) useTerminal(master *os.File) (name string, talk *backbone.Keeper, err error) {
	fd, err := duplicate(master)
	if err != nil {
		return "", nil, fmt.Errorf("cannot keep a terminal: %w", err)
	}
	m.k.mu.Lock()
	defer m.k.mu.Unlock()
	m.master = fd
	return m.state.Container, m.k.backbone.talk, nil
}

func duplicate(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var failed error
	if err := raw.Control(func(from uintptr) { fd, failed = duplicateFD(int(from)) }); err != nil {
		return -1, err
	}
	return fd, failed
}

func duplicateFD(from int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := syscall.Dup(from)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	return fd, err
}

// closeTerminal gives the terminal of a station that has ended back.
func (m *member) closeTerminal() {
	m.k.mu.Lock()
	master, name, talk := m.master, m.state.Container, m.k.backbone.talk
	m.master = -1
	m.k.mu.Unlock()
	if master < 0 {
		return
	}
	syscall.Close(master)
	if talk != nil {
		_ = talk.Drop(name) // a backbone that has ended holds nothing
	}
}

// giveTerminals has a new backbone hold the terminals of all stations.
func (k *keeper) giveTerminals(talk *backbone.Keeper) {
	k.mu.Lock()
	defer k.mu.Unlock() // none closes meanwhile
	for _, m := range k.members {
		if m.master < 0 {
			continue
		}
		fd, err := duplicateFD(m.master)
		if err != nil {
			continue
		}
		master := os.NewFile(uintptr(fd), "ptmx")
		err = talk.Hold(m.state.Container, master)
		master.Close()
		if err != nil {
			return // it has ended again: the next one gets them
		}
	}
}

// takeTerminals goes on logging the terminals of stations that an earlier keeper
// started, and has the backbone forget those of stations that have ended.
func (k *keeper) takeTerminals(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, backbonePatience)
	defer cancel()
	members, _ := k.chosen(nil)
	for _, m := range members {
		k.mu.Lock()
		name, output, talk, tty := m.state.Container, m.output, k.backbone.talk, m.station.TTY
		k.mu.Unlock()
		switch {
		case !tty:
			continue
		case output == nil:
			if talk != nil {
				_ = talk.Drop(name)
			}
			continue
		}
		if err := m.takeTerminal(ctx, talk, output); err != nil {
			k.tell(Progress{Notice: fmt.Sprintf("what %q writes to its terminal is not logged any more: %v", name, err)})
		}
		output.release()
	}
}

func (m *member) takeTerminal(ctx context.Context, talk *backbone.Keeper, output *collection) error {
	if talk == nil {
		return errors.New("the backbone does not answer")
	}
	master, err := talk.Take(ctx, m.container())
	if err != nil {
		return err
	}
	defer master.Close()
	if _, _, err := m.useTerminal(master); err != nil {
		return err
	}
	m.k.mu.Lock()
	ended := m.output != output
	m.k.mu.Unlock()
	if ended {
		m.closeTerminal()
		return nil
	}
	return output.terminal(master)
}

// terminals tells whether a station has one.
func (k *keeper) terminals() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.members, func(m *member) bool { return m.station.TTY })
}

// terminal has the collection read a terminal too, of which it duplicates the
// master. It has not been released.
func (c *collection) terminal(master *os.File) error {
	fd, err := duplicate(master)
	if err != nil {
		return fmt.Errorf("cannot log a terminal: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return fmt.Errorf("cannot log a terminal: %w", err)
	}
	slave, err := native.HoldTerminal(fd)
	if err != nil {
		syscall.Close(fd)
		return fmt.Errorf("cannot log a terminal: %w", err)
	}
	l := c.logs
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.open == 0 || l.poll == nil { // it was abandoned
		syscall.Close(fd)
		syscall.Close(slave)
		return nil
	}
	c.slaves = append(c.slaves, slave)
	s := &logStream{name: "stdout", rest: terminalRest, collection: c, fd: fd}
	c.streams = append(c.streams, s)
	c.open++
	if err := l.watch(s); err != nil {
		return fmt.Errorf("cannot log a terminal: %w", err)
	}
	return nil
}
