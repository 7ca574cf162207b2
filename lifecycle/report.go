package lifecycle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"platelayer/containers"
	"platelayer/integrity"
	"platelayer/netplan/kernel"
)

// Progress is one thing that up, down and their kind tell their caller: a
// notice, a finished step of the whole, or what a station has come to.
type Progress struct {
	Notice string `json:"notice,omitempty"`
	// Step is a step of the whole that has ended, such as "network".
	Step string `json:"step,omitempty"`
	// Stations lists what will be told about, as "cluster/station" in the order
	// of the file; it comes first.
	Stations []string `json:"stations,omitempty"`
	// Station is "cluster/station" and Phase what it does or has come to.
	Station string `json:"station,omitempty"`
	Phase   Phase  `json:"phase,omitempty"`
	Detail  string `json:"detail,omitempty"` // such as "for backend/db to be healthy"
	// Took is how long the step or the phase before this one took.
	Took time.Duration `json:"took,omitempty"` // nanoseconds
}

// Phase is what a station is doing while up or down works on it. Running,
// Healthy, Stopped, Failed, Removed and Kept are ends.
type Phase string

// Phases.
const (
	PhasePreparing Phase = "preparing"
	PhaseWaiting   Phase = "waiting"  // for what it depends on
	PhaseStartup   Phase = "startup"  // its startup command runs
	PhaseStarting  Phase = "starting" // it runs and is not healthy yet
	PhaseRunning   Phase = "running"
	PhaseHealthy   Phase = "healthy"
	PhaseStopping  Phase = "stopping"
	PhaseStopped   Phase = "stopped"
	PhaseFailed    Phase = "failed"
	PhaseRemoved   Phase = "removed"
	PhaseKept      Phase = "unchanged"
)

// StationError is a station that did not start or did not stay up.
type StationError struct {
	Container string           `json:"container"`
	While     string           `json:"while"`
	Message   string           `json:"message,omitempty"` // where the command never ran
	Exit      *containers.Exit `json:"exit,omitempty"`
	Startup   bool             `json:"startup,omitempty"` // Exit is the startup command's
	Log       []string         `json:"log,omitempty"`     // its last lines
}

func (e *StationError) Error() string {
	what := "ended"
	switch {
	case e.Message != "":
		what = e.Message
	case e.Exit == nil:
	case e.Exit.OOM:
		what = "was killed: out of memory"
	case e.Exit.Signal != 0:
		what = fmt.Sprintf("was ended by signal %d (%s)", int(e.Exit.Signal), e.Exit.Signal)
	default:
		what = fmt.Sprintf("ended with code %d", e.Exit.Code)
	}
	if e.Startup {
		what = "could not start: its startup command " + what
	}
	s := strings.TrimSpace(fmt.Sprintf("station %q %s %s", e.Container, what, e.While))
	if len(e.Log) > 0 {
		s += "\n  its last lines:"
		for _, line := range e.Log {
			s += "\n  | " + lastWords(line)
		}
	}
	return s
}

// BadFile is a sealed file that does not match, in one station.
type BadFile struct {
	Container string `json:"container"`
	integrity.Bad
	Image bool `json:"image,omitempty"` // the station runs on one, which may be damaged
}

func (b BadFile) String() string { return b.Container + ": " + b.Bad.String() }

// IntegrityError is a refused launch: all bad files of all stations.
type IntegrityError struct {
	Files []BadFile `json:"files"`
	// Verified is set where nothing was to be launched.
	Verified bool `json:"-"`
}

func (e *IntegrityError) Error() string {
	lines := make([]string, len(e.Files))
	for i, f := range e.Files {
		lines[i] = f.String()
	}
	noun := "sealed files do"
	if len(e.Files) == 1 {
		noun = "sealed file does"
	}
	return fmt.Sprintf("%d %s not match:\n  %s", len(e.Files), noun, strings.Join(lines, "\n  "))
}

// OnImage tells whether the damage may be an image's.
func (e *IntegrityError) OnImage() bool {
	return slices.ContainsFunc(e.Files, func(f BadFile) bool { return f.Image })
}

// TimeoutError is an `up --timeout` that ran out.
type TimeoutError struct {
	After   time.Duration `json:"after"` // nanoseconds
	Waiting []string      `json:"waiting"`
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("not ready after %s:\n  %s", e.After, strings.Join(e.Waiting, "\n  "))
}

// Unfinished is a change of a running topology, or a start of its stations, that
// was made and whose stations did not all become ready.
type Unfinished struct{ Err error }

func (e *Unfinished) Error() string { return e.Err.Error() }
func (e *Unfinished) Unwrap() error { return e.Err }

func unfinished(err error) error {
	if refused := new(IntegrityError); err == nil || errors.As(err, &refused) {
		return err
	}
	return &Unfinished{err}
}

// Taken is a name on the machine that a topology needs and somebody else has.
type Taken = kernel.Taken

// Unattachable is an interface of the machine's that can't be a cluster's.
type Unattachable = kernel.Unattachable

// failure carries an error across the processes without losing its type.
type failure struct {
	Message   string          `json:"message"`
	Stations  []*StationError `json:"stations,omitempty"`
	Integrity *IntegrityError `json:"integrity,omitempty"`
	Timeout   *TimeoutError   `json:"timeout,omitempty"`
	Feature   string          `json:"feature,omitempty"`
	Attach    *Unattachable   `json:"attach,omitempty"`
	Authority *BadAuthority   `json:"authority,omitempty"`
	Taken     *Taken          `json:"taken,omitempty"`
	// Unfinished: what could be done has been.
	Unfinished bool   `json:"unfinished,omitempty"`
	Busy       string `json:"busy,omitempty"` // the name of a topology on which another is at work
	Key        string `json:"key,omitempty"`  // of a station, whose value its root doesn't allow
}

func encodeFailure(err error) *failure {
	f := &failure{Message: err.Error()}
	f.Stations = stationErrors(err)
	errors.As(err, &f.Integrity)
	errors.As(err, &f.Timeout)
	errors.As(err, &f.Attach)
	errors.As(err, &f.Authority)
	errors.As(err, &f.Taken)
	f.Feature = missingFeature(err)
	f.Unfinished = errors.As(err, new(*Unfinished))
	if busy := new(Busy); errors.As(err, &busy) {
		f.Busy = busy.Name
	}
	if unfit := new(containers.Impossible); errors.As(err, &unfit) {
		f.Key = unfit.Key
	}
	return f
}

// stationErrors finds all of them in a tree of errors.
func stationErrors(err error) []*StationError {
	switch e := err.(type) {
	case *StationError:
		return []*StationError{e}
	case interface{ Unwrap() error }:
		return stationErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*StationError
		for _, one := range e.Unwrap() {
			all = append(all, stationErrors(one)...)
		}
		return all
	}
	return nil
}

func (f *failure) decode() error {
	var typed error
	switch {
	case f.Integrity != nil:
		typed = f.Integrity
	case f.Timeout != nil:
		typed = f.Timeout
	case len(f.Stations) > 0:
		errs := make([]error, len(f.Stations))
		for i, s := range f.Stations {
			errs[i] = s
		}
		typed = errors.Join(errs...)
	case f.Busy != "":
		typed = &Busy{f.Busy}
	case f.Attach != nil:
		typed = f.Attach
	case f.Authority != nil:
		typed = f.Authority
	case f.Taken != nil:
		typed = f.Taken
	case f.Feature != "":
		typed = &lacking{f.Feature, f.Message}
	case f.Key != "":
		typed = &containers.Impossible{Key: f.Key, Err: errors.New(f.Message)}
	}
	if typed == nil || typed.Error() != f.Message {
		typed = &told{f.Message, typed}
	}
	if f.Unfinished {
		typed = &Unfinished{typed}
	}
	return typed
}

// told is the keeper's error in its own words, with what is known of its type.
type told struct {
	message string
	err     error // nil where it has none that matters
}

func (e *told) Error() string { return e.message }
func (e *told) Unwrap() error { return e.err }

// lacking is an error of the keeper's about a feature that the machine lacks.
type lacking struct{ feature, message string }

func (e *lacking) Error() string { return e.message }
