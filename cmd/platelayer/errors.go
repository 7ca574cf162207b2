package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"platelayer/containers/image"
	"platelayer/lifecycle"
	"platelayer/topology"
)

// Exit codes: DESIGN.md section 4.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInvalid     = 3
	exitIntegrity   = 4
	exitStation     = 5
	exitUnsupported = 6
)

// usageError is a command line that can't be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

// fileError is a topology file, or a compose file to import, that can't be
// read.
type fileError struct {
	path    string
	err     error
	compose bool
}

func (e *fileError) Error() string {
	what := "topology"
	if e.compose {
		what = "compose"
	}
	return fmt.Sprintf("cannot read the %s file %s: %v", what, e.path, e.err)
}
func (e *fileError) Unwrap() error { return e.err }

// exitCode is a command's own code that the program passes on.
type exitCode struct {
	code int
	err  error // told, where it is not nil
}

func (e *exitCode) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// finish tells an error and its hint, and turns it into an exit code. It is
// the only place that knows either.
func (a *app) finish(err error) int {
	if err == nil {
		return 0
	}
	var own *exitCode
	if errors.As(err, &own) {
		if own.err != nil {
			fmt.Fprintf(a.stderr, "platelayer: %s\n", harmless(own.err.Error()))
			if _, hint := classify(own.err); hint != "" {
				fmt.Fprintf(a.stderr, "hint: %s\n", hint)
			}
		}
		return own.code
	}
	var problems topology.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(a.stderr, strings.TrimRight(problems.Error(), "\n"))
		return exitInvalid
	}
	fmt.Fprintf(a.stderr, "platelayer: %s\n", harmless(err.Error()))
	code, hint := classify(err)
	if hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", hint)
	}
	return code
}

// classify gives an error's exit code and what the user can do about it.
func classify(err error) (code int, hint string) {
	var (
		usage      *usageError
		file       *fileError
		refused    *lifecycle.IntegrityError
		station    *lifecycle.StationError
		dynamic    image.DynamicError
		late       *lifecycle.TimeoutError
		lost       *lifecycle.KeeperEnded
		other      *lifecycle.OtherAPI
		down       *lifecycle.NotUp
		busy       *lifecycle.Busy
		unknown    *lifecycle.NotKnown
		selection  *topology.SelectionError
		unready    *lifecycle.Unfinished
		newer      *lifecycle.OtherFormat
		elsewhere  *lifecycle.Elsewhere
		unreadable *lifecycle.Unreadable
		wanting    *lifecycle.Wanting
		authority  *lifecycle.NoAuthority
		damaged    *lifecycle.BadAuthority
		attach     *lifecycle.Unattachable
		machine    *lifecycle.OtherMachine
		taken      *lifecycle.Taken
	)
	switch {
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "if any flags in the group"):
		return exitUsage, "platelayer COMMAND --help says how it is used"
	case strings.HasPrefix(err.Error(), "unknown command"):
		return exitUsage, "platelayer --help lists the commands"
	case errors.As(err, &file):
		if file.compose {
			return exitInvalid, "name the compose file, or its folder: platelayer import FILE"
		}
		if errors.Is(err, fs.ErrNotExist) {
			return exitInvalid, "name the file (platelayer up FILE), or write a first one with: platelayer init"
		}
		return exitInvalid, ""
	case errors.As(err, &refused) && refused.Verified:
		return exitIntegrity, "if the change is meant, seal it anew with: platelayer seal"
	case errors.As(err, &refused):
		return exitIntegrity, "nothing was started or changed; if the change is meant, seal it anew with: platelayer seal"
	case errors.As(err, &selection):
		return exitInvalid, "enable its profile with --profile NAME, or name the station with --only"
	case errors.As(err, &unready) && (errors.As(err, &station) || errors.As(err, &late)):
		return exitStation, "all else is as asked for; platelayer logs STATION tells more, and up or start tries it again"
	case errors.As(err, &station), errors.As(err, &late):
		return exitStation, "look at it with: platelayer logs; a launch that was undone stays with: platelayer up --keep"
	case errors.As(err, &dynamic):
		return exitUnsupported, "build it with CGO_ENABLED=0"
	case errors.As(err, &wanting) && !lifecycle.Unsupported(err):
		return exitFailed, "nothing was started or changed; put there what is missing, or edit these lines"
	case errors.As(err, &attach):
		return exitUnsupported, "ip address and ip link show what the machine does with " + attach.Name + "; attach takes what it does not use itself"
	case lifecycle.Unsupported(err):
		if strings.Contains(err.Error(), "root privilege") {
			return exitUnsupported, "run it with sudo"
		}
		if strings.Contains(err.Error(), "transparent proxying") {
			return exitUnsupported, "modprobe -a nft_tproxy nft_socket nft_reject_inet; without them, a topology with egress: none and no published ports runs"
		}
		if strings.Contains(err.Error(), "packet sockets") {
			return exitUnsupported, "modprobe af_packet; without it, a topology with egress: none and no published ports runs"
		}
		return exitUnsupported, "platelayer doctor tells what this machine can do"
	case errors.As(err, &machine):
		return exitFailed, "its keeper has ended, and one from here would lead elsewhere: run the command there, or take it down"
	case errors.As(err, &lost):
		return exitFailed, "its last words are in keeper.log among the topology's logs; the next command starts another keeper"
	case errors.As(err, &other) && other.Theirs > other.Ours:
		return exitFailed, "a newer platelayer brought it up: use that one"
	case errors.As(err, &other):
		return exitFailed, "platelayer up replaces the keeper and leaves its stations alone"
	case errors.As(err, &down):
		return exitFailed, "bring it up with: platelayer up -n " + down.Name + " FILE"
	case errors.As(err, &elsewhere), errors.As(err, &taken):
		return exitUnsupported, "bring a copy up under another name with -n"
	case errors.As(err, &newer):
		return exitFailed, "use that platelayer, or remove the topology with what its stations wrote: platelayer down " + newer.Name
	case errors.As(err, &unreadable) && filepath.Base(unreadable.Path) == "state.json":
		return exitFailed, fmt.Sprintf("platelayer down %s removes it with what its stations wrote; to keep that, remove %s, and up starts them anew",
			unreadable.Name, unreadable.Path)
	case errors.As(err, &unreadable):
		return exitFailed, "platelayer down " + unreadable.Name + " removes it with what its stations wrote"
	case errors.As(err, &busy):
		return exitFailed, "wait for it to finish, or interrupt it, and try again"
	case errors.As(err, &authority):
		return exitFailed, "give a station tls: true and bring the topology up: it is made then"
	case errors.As(err, &damaged):
		return exitFailed, fmt.Sprintf("restore it, or have a new one made by the next up: platelayer down %s --volumes removes it, and named volumes", damaged.Name)
	case errors.As(err, &unknown):
		return exitFailed, "platelayer ls lists the topologies"
	}
	return exitFailed, ""
}
