package lifecycle

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"platelayer/containers"
	"platelayer/integrity"
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
	Log       []string         `json:"log,omitempty"` // its last lines
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
	s := fmt.Sprintf("station %q %s %s", e.Container, what, e.While)
	if len(e.Log) > 0 {
		s += "\n  its last lines:\n  | " + strings.Join(e.Log, "\n  | ")
	}
	return s
}

// BadFile is a sealed file that does not match, in one station.
type BadFile struct {
	Container string `json:"container"`
	integrity.Bad
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

// report is one line from the keeper to the `up` that started it.
type report struct {
	Progress *Progress `json:"progress,omitempty"`
	Up       bool      `json:"up,omitempty"`
	Failure  *failure  `json:"failure,omitempty"`
}

// failure carries an error across the processes without losing its type.
type failure struct {
	Message   string          `json:"message"`
	Station   *StationError   `json:"station,omitempty"`
	Integrity *IntegrityError `json:"integrity,omitempty"`
	Feature   string          `json:"feature,omitempty"`
}

func encodeFailure(err error) *failure {
	f := &failure{Message: err.Error()}
	errors.As(err, &f.Station)
	errors.As(err, &f.Integrity)
	f.Feature = missingFeature(err)
	return f
}

func (f *failure) decode() error {
	switch {
	case f.Integrity != nil:
		return f.Integrity
	case f.Station != nil:
		return f.Station
	case f.Feature != "":
		return &lacking{f.Feature, f.Message}
	}
	return errors.New(f.Message)
}

// lacking is an error of the keeper's about a feature that the machine lacks.
type lacking struct{ feature, message string }

func (e *lacking) Error() string { return e.message }

// follow reads the keeper's reports until the topology is up or has failed.
func follow(ctx context.Context, conn *os.File, progress func(Progress)) error {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })
	defer stop()
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadBytes('\n')
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return errors.New("the keeper ended before the topology was up")
		}
		if err != nil {
			return fmt.Errorf("cannot hear the keeper: %w", err)
		}
		var r report
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("cannot understand the keeper: %w", err)
		}
		switch {
		case r.Progress != nil:
			progress(*r.Progress)
		case r.Failure != nil:
			return r.Failure.decode()
		case r.Up:
			return nil
		}
	}
}
