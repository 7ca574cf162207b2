package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/creack/pty"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"platelayer/containers"
	"platelayer/lifecycle"
)

func (a *app) execCommand() *cobra.Command {
	var (
		o     lifecycle.ExecOptions
		noTTY bool
	)
	c := &cobra.Command{
		Use:   "exec STATION COMMAND [ARG...]",
		Short: "Run a command in a running station",
		Long: `Run a command in a running station. Flags come before the station's name. The
exit code is the command's, or 125 where there was none: the station does not
run; 126: the command cannot be executed; 127: it is not there.

With -d the command runs on alone, without input and output, until it ends or
the station does; the exit code is 0 once it has been executed. Nothing of the
caller's environment enters the station but what -e NAME asks for.` + stationHelp,
		Example: `  platelayer exec www1 sh
  platelayer exec -u postgres backend/db psql -c 'SELECT 1'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return &usageError{errors.New("exec needs a station and a command")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.Args = args[1:]
			o.TTY = !noTTY && !o.Detach && term.IsTerminal(int(a.stdin.Fd())) && term.IsTerminal(int(a.stdout.Fd()))
			return a.exec(args[0], o)
		},
	}
	c.Flags().SetInterspersed(false)
	c.Flags().StringVarP(&o.User, "user", "u", "", "user to run as (default: the station's)")
	c.Flags().StringVarP(&o.WorkingDir, "workdir", "w", "", "folder to run in (default: the station's)")
	c.Flags().StringArrayVarP(&o.Env, "env", "e", nil, "set a variable, NAME=VALUE; NAME alone takes its value from here, or removes it")
	c.Flags().BoolVarP(&o.Detach, "detach", "d", false, "leave it running alone, without input and output")
	c.Flags().BoolVarP(&noTTY, "no-tty", "T", false, "give no terminal")
	return c
}

func (a *app) exec(ref string, o lifecycle.ExecOptions) error {
	name, err := a.targetOf(ref)
	if err != nil {
		return err
	}
	a.tend(name)
	t, err := lifecycle.Recorded(a.layout(), name)
	if err != nil {
		return err
	}
	s, err := t.Lookup(ref)
	if err != nil {
		return err
	}
	return a.follow(o, func(o lifecycle.ExecOptions) (containers.Process, error) {
		return lifecycle.Exec(context.Background(), a.layout(), name, s, o)
	})
}

// follow starts a command and passes input, output, signals and the exit code
// on.
func (a *app) follow(o lifecycle.ExecOptions, start func(lifecycle.ExecOptions) (containers.Process, error)) error {
	var err error
	if o.Env, err = named(o.Env); err != nil {
		return err
	}
	o.Stdin, o.Stdout, o.Stderr = a.stdin, a.stdout, a.stderr
	var terminal terminal
	if o.TTY {
		if kind := os.Getenv("TERM"); kind != "" {
			o.Env = append([]string{"TERM=" + kind}, o.Env...)
		}
		o.Attach = func(master *os.File) error { return terminal.attach(a, master) }
	}
	defer terminal.restore()
	// Signals go to the command, not to this program.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	defer signal.Stop(signals)

	process, err := start(o)
	if execErr := new(containers.ExecError); errors.As(err, &execErr) {
		return &exitCode{execErr.Code(), err}
	}
	if err != nil {
		if code, _ := classify(err); code != exitFailed || errors.As(err, new(*exitCode)) {
			return err
		}
		return &exitCode{125, err}
	}
	if o.Detach {
		return nil
	}
	go func() {
		for sig := range signals {
			if sig == syscall.SIGWINCH {
				terminal.resize(a)
				continue
			}
			process.Signal(sig.(syscall.Signal))
		}
	}()
	exit, err := process.Wait()
	terminal.drain()
	if err != nil {
		return &exitCode{125, err}
	}
	if exit.Code != 0 {
		return &exitCode{code: exit.Code}
	}
	return nil
}

// named gives variables that -e names without a value the caller's, as compose
// does.
func named(env []string) ([]string, error) {
	out := slices.Clone(env)
	for i, e := range out {
		name, _, set := strings.Cut(e, "=")
		if name == "" {
			return nil, &usageError{fmt.Errorf("-e %s is not NAME=VALUE or NAME", e)}
		}
		if value, here := os.LookupEnv(name); here && !set {
			out[i] = name + "=" + value
		}
	}
	return out, nil
}

// terminal joins the user's terminal with that of a command in a station.
type terminal struct {
	master *os.File
	before *term.State
	in     *os.File
	copied chan struct{}
}

func (t *terminal) attach(a *app, master *os.File) error {
	before, err := term.MakeRaw(int(a.stdin.Fd()))
	if err != nil {
		return fmt.Errorf("cannot set the terminal to raw mode: %w", err)
	}
	t.master, t.before, t.in, t.copied = master, before, a.stdin, make(chan struct{})
	t.resize(a)
	go io.Copy(master, a.stdin)
	go func() {
		io.Copy(a.stdout, master) // ends with EIO when the last holder of the other end is gone
		close(t.copied)
	}()
	return nil
}

func (t *terminal) resize(a *app) {
	if t.master != nil {
		pty.InheritSize(a.stdin, t.master)
	}
}

// drain waits for the command's last output.
func (t *terminal) drain() {
	if t.master != nil {
		<-t.copied
	}
}

func (t *terminal) restore() {
	if t.before != nil {
		term.Restore(int(t.in.Fd()), t.before)
		t.before = nil
	}
}
