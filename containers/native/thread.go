package native

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A thread is an OS thread which may enter namespaces. It starts in the
// machine's and goes home after every job; one that can't is thrown away.
type thread struct {
	proc int // /proc/thread-self, reachable whatever the thread's root is
	root int // the machine's root folder, as the process saw it
	home []homeNS
	pids int // the pid namespace for children at home, or -1 while they are there
	away bool
}

type homeNS struct {
	name string
	flag int
	fd   int
}

// namespaces are the kinds a thread enters and leaves. The mount namespace
// comes first, as the machine's root can be set again only inside it.
var namespaces = [...]homeNS{
	{"mnt", unix.CLONE_NEWNS, -1},
	{"net", unix.CLONE_NEWNET, -1},
	{"uts", unix.CLONE_NEWUTS, -1},
	{"ipc", unix.CLONE_NEWIPC, -1},
}

// lockThread binds the calling goroutine to a thread other than the process's
// first: that one can't be thrown away, and /proc/self shows its namespaces.
// The thread's root, working folder and umask become its own.
func lockThread() (*thread, error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		runtime.UnlockOSThread()
		return nil, errFirstThread
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("cannot unshare the thread's root: %w", err)
	}
	unix.Umask(0)
	t := &thread{proc: -1, root: -1, pids: -1}
	var err error
	if t.proc, err = unix.Open("/proc/thread-self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("cannot open /proc/thread-self: %w", err)
	}
	if t.root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		t.close()
		return nil, fmt.Errorf("cannot open the root folder: %w", err)
	}
	for _, ns := range namespaces {
		if ns.fd, err = t.openNS(ns.name); err != nil {
			t.close()
			return nil, err
		}
		t.home = append(t.home, ns)
	}
	return t, nil
}

var errFirstThread = errors.New("the process's first thread stays where it is")

// onThread runs f on a thread of its own, which is thrown away afterwards.
func onThread(f func(*thread) error) error {
	done := make(chan error, 1)
	var run func()
	run = func() {
		t, err := lockThread()
		if errors.Is(err, errFirstThread) {
			// Holding the first thread until the next goroutine has locked
			// another one keeps it from landing here again.
			runtime.LockOSThread()
			locked := make(chan struct{})
			go func() {
				runtime.LockOSThread()
				close(locked)
				run()
			}()
			<-locked
			runtime.UnlockOSThread()
			return
		}
		if err != nil {
			done <- err
			return
		}
		defer t.close()
		done <- f(t)
	}
	go run()
	return <-done
}

// openNS opens one of the thread's present namespaces.
func (t *thread) openNS(name string) (int, error) {
	fd, err := unix.Openat(t.proc, "ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open the %s namespace: %w", name, err)
	}
	return fd, nil
}

// openNull opens a container's own null device: who gets the machine's could
// change its mode and owner. What a container put in its place is not opened.
func (t *thread) openNull(root int) (int, error) {
	at, err := openIn(root, "/dev/null", unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer closeFD(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return -1, fmt.Errorf("cannot inspect /dev/null: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return -1, errors.New("cannot use the container's /dev/null: it is not the null device")
	}
	fd, err := unix.Openat(t.proc, "fd/"+strconv.Itoa(at), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open the container's /dev/null: %w", err)
	}
	return fd, nil
}

// leavePIDs is called before the thread's children are to get another pid
// namespace; few threads ever need it.
func (t *thread) leavePIDs() (err error) {
	t.away = true
	t.pids, err = t.openNS("pid")
	return err
}

// goHome returns to the machine's namespaces and root.
func (t *thread) goHome() error {
	if !t.away {
		return nil
	}
	for _, ns := range t.home {
		if err := unix.Setns(ns.fd, ns.flag); err != nil {
			return fmt.Errorf("cannot return to the %s namespace: %w", ns.name, err)
		}
	}
	if t.pids >= 0 {
		if err := unix.Setns(t.pids, unix.CLONE_NEWPID); err != nil {
			return fmt.Errorf("cannot return to the pid namespace: %w", err)
		}
		closeFD(t.pids)
		t.pids = -1
	}
	if err := enterRoot(t.root); err != nil {
		return err
	}
	t.away = false
	return nil
}

// enterRoot makes an open folder the thread's root and working folder.
func enterRoot(fd int) error {
	if err := unix.Fchdir(fd); err != nil {
		return fmt.Errorf("cannot enter a root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("cannot change root: %w", err)
	}
	return nil
}

func (t *thread) close() {
	for _, ns := range t.home {
		closeFD(ns.fd)
	}
	closeFD(t.proc)
	closeFD(t.root)
	closeFD(t.pids)
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = syscall.Close(fd)
	}
}

// A pool runs jobs on a fixed number of threads.
type pool struct {
	jobs chan job
}

type job struct {
	run  func(*thread) error
	done chan error
}

func newPool(workers int) *pool {
	p := &pool{jobs: make(chan job)}
	for range workers {
		go p.work()
	}
	return p
}

// work serves jobs until the pool closes. A thread that can't go home ends
// with its goroutine and another takes its place.
func (p *pool) work() {
	for j := range p.jobs {
		stay := true
		err := onThread(func(t *thread) error {
			for {
				j.done <- j.run(t)
				if t.goHome() != nil {
					return nil
				}
				var ok bool
				if j, ok = <-p.jobs; !ok {
					stay = false
					return nil
				}
			}
		})
		if err != nil {
			j.done <- err
		}
		if !stay {
			return
		}
	}
}

func (p *pool) do(f func(*thread) error) error {
	j := job{run: f, done: make(chan error, 1)}
	p.jobs <- j
	return <-j.done
}

func (p *pool) close() { close(p.jobs) }
