package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// machineEnv tells that the tests run in a network namespace of their own,
// which stands for the machine: its routes and ports are not the real one's.
const machineEnv = "PLATELAYER_TEST_MACHINE"

func inOwnMachine() int {
	runtime.LockOSThread()                                 // whose end ends the other (prctl(2))
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT) // the other heeds it
	c := exec.Command("/bin/sh", append([]string{"-c", `ip link set lo up && exec "$0" "$@"`}, os.Args...)...)
	c.Env = append(os.Environ(), machineEnv+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
