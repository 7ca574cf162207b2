package lifecycle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"platelayer/topology"
)

func testLayout(t *testing.T, name, intent, state string) Layout {
	t.Helper()
	l := NewLayout(t.TempDir())
	if err := errors.Join(os.MkdirAll(l.run(name), 0o700), os.MkdirAll(l.lib(name), 0o700)); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{l.intent(name): intent, l.state(name): state} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// TestStateOnDisk: a newer format, a truncated file and a foreign name are
// refused with what is wrong; a missing one is a topology that is not here.
func TestStateOnDisk(t *testing.T) {
	for _, c := range []struct{ name, intent, state, want string }{
		{"newer", `{"version": 99}`, "", "format 99"},
		{"cut", `{"version": 1, "topo`, "", "cannot read"},
		{"empty", `{"version": 1}`, "", "names no topology"},
		{"missing", "", "", "there is no topology"},
	} {
		l := testLayout(t, c.name, c.intent, c.state)
		if _, err := readIntent(l, c.name); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	l := testLayout(t, "cut", "", `{"version": 1, "stat`)
	if _, err := readState(l, "cut"); err == nil {
		t.Error("a truncated state was read")
	}
	for _, name := range []string{"", "..", "a/b", "A", "-a", ".locks", strings.Repeat("a", 64)} {
		if _, err := readState(l, name); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("the name %q: %v", name, err)
		}
	}
}

// TestResolve: a topology is found by name, or by the file that it came from
// though that can't be parsed any more.
func TestResolve(t *testing.T) {
	file := filepath.Join(t.TempDir(), "platelayer.yaml")
	l := testLayout(t, "shop", "", "")
	intent := &Intent{Version: formatVersion, File: file, Topology: &topology.Topology{Name: "shop"}}
	if err := write(l.intent("shop"), intent, true); err != nil {
		t.Fatal(err)
	}
	for _, parsed := range []string{"shop", "", "renamed"} {
		if got, err := Resolve(l, file, parsed); err != nil || got != "shop" {
			t.Errorf("with %q in the file: %q, %v", parsed, got, err)
		}
	}
	if _, err := Resolve(l, "elsewhere.yaml", ""); err == nil {
		t.Error("a file that was never up was found")
	}
}

// TestLock: a name has one holder; another name is not concerned.
func TestLock(t *testing.T) {
	l := NewLayout(t.TempDir())
	unlock, err := lock(l, "a")
	if err != nil {
		t.Fatal(err)
	}
	var busy *Busy
	if _, err := lock(l, "a"); !errors.As(err, &busy) {
		t.Errorf("locked twice: %v", err)
	}
	other, err := lock(l, "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	unlock()
	again, err := lock(l, "a")
	if err != nil {
		t.Fatal(err)
	}
	again()
	if _, err := os.Stat(filepath.Join(l.locks(), "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a topology that is gone its lock stays: %v", err)
	}
	if err := os.MkdirAll(l.lib("a"), 0o700); err != nil {
		t.Fatal(err)
	}
	kept, err := lock(l, "a")
	if err != nil {
		t.Fatal(err)
	}
	kept()
	if _, err := os.Stat(filepath.Join(l.locks(), "a")); err != nil {
		t.Error("of a topology that is there its lock goes:", err)
	}
}

// TestLockThatIsRemoved: many that take it and remove it never hold it at once.
func TestLockThatIsRemoved(t *testing.T) {
	l := NewLayout(t.TempDir())
	var holders atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for held := 0; held < 300; {
				unlock, err := lock(l, "a")
				if busy := new(Busy); errors.As(err, &busy) {
					runtime.Gosched()
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold it", n)
				}
				runtime.Gosched()
				holders.Add(-1)
				unlock()
				held++
			}
		})
	}
	all.Wait()
}

// TestFailureKeepsItsType: what the keeper reports is what up returns.
func TestFailureKeepsItsType(t *testing.T) {
	var station *StationError
	err := encodeFailure(errors.Join(errors.New("x"), &StationError{Container: "a.b.c", While: "starting"})).decode()
	if !errors.As(err, &station) || station.Container != "a.b.c" {
		t.Errorf("a station's error became %v", err)
	}
	var refused *IntegrityError
	err = encodeFailure(&IntegrityError{Files: []BadFile{{Container: "a.b.c"}}}).decode()
	if !errors.As(err, &refused) || len(refused.Files) != 1 {
		t.Errorf("a refusal became %v", err)
	}
}
