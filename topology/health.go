package topology

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Defaults of a healthcheck, compose's.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultRetries       = 3
	defaultStartInterval = 5 * time.Second
)

// healthcheck reads how a station is checked; nil where it isn't.
func (l *loader) healthcheck(n *node, ofImage bool) *Healthcheck {
	if n == nil {
		return nil
	}
	if d := n.get("disable"); d != nil && strings.EqualFold(d.text, "true") {
		return noHealthcheck(ofImage)
	}
	test := n.get("test")
	if test == nil && !ofImage {
		if !n.spoiled("test") {
			l.spoil(n, "the healthcheck has no test", `add test: [CMD, PROGRAM, ...], or disable: true for no healthcheck`)
		}
		return nil
	}
	h := l.healthNumbers(n)
	if test != nil {
		if h.Test = l.healthTest(test); len(h.Test) == 0 {
			return noHealthcheck(ofImage)
		}
	}
	if !ofImage { // what is zero is the image's
		h.complete()
	}
	return h
}

// complete puts defaults where nothing is said.
func (h *Healthcheck) complete() {
	h.Interval, h.Timeout = cmp.Or(h.Interval, defaultInterval), cmp.Or(h.Timeout, defaultTimeout)
	h.StartInterval, h.Retries = cmp.Or(h.StartInterval, defaultStartInterval), cmp.Or(h.Retries, defaultRetries)
}

// healthNumbers reads all but the test; what isn't said is zero.
func (l *loader) healthNumbers(n *node) *Healthcheck {
	h := new(Healthcheck)
	for _, d := range []struct {
		key   string
		to    *time.Duration
		usual time.Duration
	}{{"interval", &h.Interval, defaultInterval}, {"timeout", &h.Timeout, defaultTimeout}, {"start_interval", &h.StartInterval, defaultStartInterval}} {
		if v := n.get(d.key); v != nil {
			*d.to = l.pause(v, d.usual)
		}
	}
	if p := n.get("start_period"); p != nil {
		h.StartPeriod = l.duration(p, "0s gives no time to start")
	}
	if r := n.get("retries"); r != nil {
		var err error
		if h.Retries, err = strconv.Atoi(r.text); err != nil || h.Retries < 1 {
			l.spoil(r, fmt.Sprintf("retries cannot be %s", r.text), "at least 1: the failures in a row that make the station unhealthy")
		}
	}
	if u := n.get("on_unhealthy"); u != nil {
		h.RestartUnhealthy = u.text == "restart"
	}
	return h
}

// noHealthcheck is that of a station that is to have none, also where its image
// has one.
func noHealthcheck(ofImage bool) *Healthcheck {
	if !ofImage {
		return nil
	}
	return &Healthcheck{Test: []string{NoHealthcheck}}
}

// healthTest reads the command of a healthcheck; nil is none.
func (l *loader) healthTest(n *node) []string {
	const shell = `write one text for a shell, or [CMD, PROGRAM, ARGUMENT, ...]`
	if n.kind == scalar {
		switch first, _, _ := strings.Cut(strings.TrimSpace(n.text), " "); first {
		case "":
			l.spoil(n, "the test is empty", shell+"; for no healthcheck disable: true")
			return nil
		case "CMD", "CMD-SHELL", "NONE":
			l.spoil(n, fmt.Sprintf("a test that is one text is a shell's, and %s is no program", first), fmt.Sprintf("write a list: [%s, ...]", first))
			return nil
		}
		return []string{"/bin/sh", "-c", n.text}
	}
	words := l.words(n)
	switch {
	case n.anyBad():
		return nil
	case len(words) == 0:
		l.spoil(n, "the test is empty", shell+"; for no healthcheck [NONE]")
		return nil
	}
	args := words[1:]
	switch words[0] {
	case "NONE":
		if len(args) > 0 {
			l.spoil(n, "NONE stands alone", "write [NONE], or [CMD, ...] for a healthcheck")
		}
		return nil
	case "CMD":
		if len(args) == 0 || args[0] == "" {
			l.spoil(n, "the test has no program", "write [CMD, PROGRAM, ARGUMENT, ...]")
		}
		return args
	case "CMD-SHELL":
		if len(args) != 1 || strings.TrimSpace(args[0]) == "" {
			l.spoil(n, "CMD-SHELL takes one text", `write [CMD-SHELL, "PROGRAM ARGUMENT"], or [CMD, PROGRAM, ARGUMENT]`)
			return nil
		}
		return []string{"/bin/sh", "-c", args[0]}
	}
	l.spoil(n, fmt.Sprintf("the test starts with %s, not with CMD, CMD-SHELL or NONE", quoted(words[0])), "write [CMD, ...]")
	return nil
}

// pause reads a time that something repeated by the keeper takes: one of no
// length would leave the machine nothing else to do.
func (l *loader) pause(n *node, def time.Duration) time.Duration {
	d := l.duration(n, "at least 1ms")
	if !n.bad && d < time.Millisecond {
		l.spoil(n, fmt.Sprintf("time %s is too short", n.text), fmt.Sprintf("at least 1ms; %s is usual", duration(def)))
	}
	return d
}

// duration reads a time that is not negative; hint says what 0s or the least
// one means.
func (l *loader) duration(n *node, hint string) time.Duration {
	d, err := time.ParseDuration(n.text)
	switch {
	case err != nil:
		hint := "write it with its unit: 500ms, 10s or 1m30s"
		if _, err := strconv.ParseUint(n.text, 10, 32); err == nil {
			hint = fmt.Sprintf("did you mean %ss?", n.text)
		}
		l.spoil(n, fmt.Sprintf("%s is not a time", quoted(n.text)), hint)
	case d < 0:
		l.spoil(n, fmt.Sprintf("time %s is negative", n.text), hint)
	}
	return d
}
