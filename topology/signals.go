package topology

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	firstRealtime = 34 // what glibc calls SIGRTMIN
	lastRealtime  = 64
)

// signalNames lists Linux's signals from 1 on.
func signalNames() []string {
	return strings.Fields("HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT " +
		"CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS")
}

// signalName returns the usual form of a signal given by name, with or
// without SIG, or by number.
func signalName(s string) (string, bool) {
	number, ok := signalNumber(s)
	names := signalNames()
	switch {
	case !ok:
		return "", false
	case number <= len(names):
		return "SIG" + names[number-1], true
	case number >= firstRealtime:
		return fmt.Sprintf("SIGRTMIN+%d", number-firstRealtime), true
	}
	return strconv.Itoa(number), true
}

func signalNumber(s string) (int, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return n, n >= 1 && n <= lastRealtime
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if i := slices.Index(signalNames(), name); i >= 0 {
		return i + 1, true
	}
	if i := slices.Index([]string{"IOT", "POLL", "CLD"}, name); i >= 0 {
		return []int{6, 29, 17}[i], true
	}
	switch {
	case name == "RTMIN":
		return firstRealtime, true
	case name == "RTMAX":
		return lastRealtime, true
	case strings.HasPrefix(name, "RTMIN+"):
		n, err := strconv.ParseUint(name[6:], 10, 8)
		return firstRealtime + int(n), err == nil && firstRealtime+n <= lastRealtime
	case strings.HasPrefix(name, "RTMAX-"):
		n, err := strconv.ParseUint(name[6:], 10, 8)
		return lastRealtime - int(n), err == nil && lastRealtime-int(n) >= firstRealtime
	}
	return 0, false
}

// Signal is the number of the station's stop signal.
func (s *Station) Signal() int {
	n, ok := signalNumber(s.StopSignal)
	if !ok {
		return 15 // SIGTERM
	}
	return n
}

// SignalNumber is the number of a signal given by name, with or without SIG,
// or by number.
func SignalNumber(s string) (int, bool) { return signalNumber(s) }
