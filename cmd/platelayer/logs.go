package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
)

func (a *app) logsCommand() *cobra.Command {
	var (
		follow bool
		tail   int
	)
	c := a.jsonFlag(&cobra.Command{
		Use:   "logs [STATION...]",
		Short: "Print what stations wrote to their output",
		RunE: func(c *cobra.Command, args []string) error {
			return a.logs(c.Context(), args, follow, tail)
		},
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what they write from now on")
	c.Flags().IntVar(&tail, "tail", -1, "print only this many of each station's last lines")
	return c
}

func (a *app) logs(ctx context.Context, refs []string, follow bool, tail int) error {
	var name string
	var err error
	if len(refs) > 0 {
		name, err = a.targetOf(refs[0])
	} else {
		name, err = a.target(nil)
	}
	if err != nil {
		return err
	}
	t, err := lifecycle.Recorded(a.layout(), name)
	if err != nil {
		return err
	}
	which, err := lookupAll(t, refs)
	if err != nil {
		return err
	}
	print := &logPrinter{out: a.stdout, err: a.stderr, prefix: len(which) != 1}
	emit := print.emit
	if a.json {
		encoder := json.NewEncoder(a.stdout)
		emit = func(r lifecycle.Record) error { return encoder.Encode(r) }
	}
	return lifecycle.Logs(ctx, a.layout(), name, lifecycle.LogOptions{Stations: which, Follow: follow, Tail: tail}, emit)
}

// logPrinter prints records: stdout to stdout, stderr to stderr, and with
// several stations each line behind its station's name.
type logPrinter struct {
	out, err io.Writer
	prefix   bool
	last     string // the stream whose unfinished line is the last thing printed, or ""
}

func (p *logPrinter) emit(r lifecycle.Record) error {
	w := p.out
	if r.Stream == "stderr" {
		w = p.err
	}
	text, key := r.Text, r.Station+" "+r.Stream
	if p.last != key {
		if p.prefix {
			text = fmt.Sprintf("%s | %s", r.Station, text)
		}
		if p.last != "" { // another stream's line is unfinished
			text = "\n" + text
		}
	}
	if p.last = key; !r.Partial {
		text += "\n"
		p.last = ""
	}
	_, err := io.WriteString(w, text)
	return err
}
