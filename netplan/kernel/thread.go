package kernel

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onOwnThread runs f on a thread that changes its network namespace and is
// thrown away afterwards: the goroutine ends locked to it, so the runtime ends
// the thread too. The main thread cannot end (the runtime parks it, in
// whatever namespace it is in by then), so where the goroutine lands there it
// holds the main thread while another goroutine, on another thread, does the
// work.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}
