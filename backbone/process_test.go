package backbone

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

const processVar = "PLATELAYER_TEST_BACKBONE"

// TestBackboneProcess is the backbone of TestAdoptionAcrossNamespaces.
func TestBackboneProcess(t *testing.T) {
	if os.Getenv(processVar) == "" {
		t.Skip("runs in another test's process only")
	}
	if err := Run(context.Background(), os.NewFile(3, "keeper"), os.Stderr); err != nil {
		t.Fatal(err)
	}
}

// dialIn connects in the network namespace of a process.
func dialIn(pid int, socket string) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	got := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is thrown away
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			got <- result{nil, err}
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			got <- result{nil, err}
			return
		}
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			got <- result{nil, err}
			return
		}
		if err := unix.Connect(s, &unix.SockaddrUnix{Name: socket}); err != nil {
			unix.Close(s)
			got <- result{nil, err}
			return
		}
		got <- result{os.NewFile(uintptr(s), "backbone"), nil}
	}()
	r := <-got
	return r.f, r.err
}

func TestAdoptionAcrossNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	ours, theirs, err := Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0], "-test.run=^TestBackboneProcess$")
	c.Env = append(os.Environ(), processVar+"=1")
	c.ExtraFiles = []*os.File{theirs}
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	// The parent's death is its thread's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	serve := func(conn *os.File) (stop func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		ready, end := make(chan struct{}), make(chan error, 1)
		d := netplan.DNS{Listen: addrs("203.0.113.254")}
		go func() { end <- Serve(ctx, conn, Config{DNS: d}, Dial, func() { close(ready) }) }()
		select {
		case <-ready:
		case err := <-end:
			t.Fatalf("the backbone is not ready: %v", err)
		case <-time.After(20 * time.Second):
			t.Fatal("the backbone does not answer")
		}
		return func() {
			cancel()
			within(t, end, "the keeper")
		}
	}
	serve(ours)()
	if conn, err := dialIn(os.Getpid(), SocketName); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("from the machine's namespace: %v, %v", conn, err)
	}
	for range 3 {
		conn, err := dialIn(c.Process.Pid, SocketName)
		if err != nil {
			t.Fatal(err)
		}
		serve(conn)()
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.Process.Pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "Threads") {
			t.Log(line)
		}
	}
}

// Serve is the keeper's side in one call: see Keeper. ready, when not nil, is
// called once, when the backbone answers DNS.
func Serve(ctx context.Context, conn *os.File, cfg Config, dial DialFunc, ready func()) error {
	k, err := NewKeeper(conn, dial)
	if err != nil {
		return err
	}
	return k.Serve(ctx, cfg, ready)
}
