package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"platelayer/containers/image"
)

// builtinProgram finds the program of the built-in image that the binary was
// called as; nil is platelayer itself.
func builtinProgram(name string) func(context.Context, []string, io.Writer, io.Writer) int {
	switch name {
	case "serve":
		return image.Serve
	case "fetch":
		return image.Fetch
	case "lookup":
		return image.Lookup
	}
	return nil
}

// interruptible is a context that Ctrl-C ends.
func interruptible() (context.Context, context.CancelFunc) {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		signals = append(signals, syscall.SIGHUP)
	}
	return signal.NotifyContext(context.Background(), signals...)
}
