package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// parseTail reads --tail: a number of lines, or -1 for "all".
func parseTail(text string) (int, error) {
	if text == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < -1 { // -1 is all in docker, too
		return 0, errors.New(`must be a number of lines, or "all"`)
	}
	return n, nil
}

// parseMoment reads a time as docker's --since takes it: how long before now
// (1h30m), RFC 3339 or a part of it, in the local zone where it names none, or
// seconds since 1970 with or without a fraction. Empty gives the zero time.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 && text != "0" {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{
		"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04Z07:00", "2006-01-02Z07:00",
		"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02",
	} {
		if at, err := time.ParseInLocation(layout, strings.Replace(text, " ", "T", 1), now.Location()); err == nil {
			return at, nil
		}
	}
	if at, ok := parseUnix(text); ok {
		return at, nil
	}
	return time.Time{}, errors.New("must be how long ago (10m), a time (2006-01-02T15:04:05, with or without a zone) or seconds since 1970")
}

func parseUnix(text string) (time.Time, bool) {
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || seconds > math.MaxUint32 {
		return time.Time{}, false
	}
	nanos, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 63)
	if err != nil || len(fraction) > 9 {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), int64(nanos)), true
}
