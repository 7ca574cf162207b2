package native

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A signal that is pending while the kernel verifies the device filter, as the
// Go runtime sends them to its own threads, does not refuse a start.
func TestDeviceFilterUnderSignals(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	h := findHierarchies()
	thread, stop, stopped := unix.Gettid(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Tgkill(unix.Getpid(), thread, unix.SIGURG)
				time.Sleep(10 * time.Microsecond)
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	for range 3000 {
		fd, err := h.loadDeviceFilter(nil)
		if err != nil {
			t.Fatal(err)
		}
		if fd >= 0 {
			closeFD(fd)
		}
	}
}
