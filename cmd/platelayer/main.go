// Command platelayer builds a network of containers from one YAML file.
package main

import (
	"os"
	"path/filepath"
	"runtime"
)

func main() {
	// The first thread stays out of every namespace: /proc/self is its view.
	// The program runs beside it.
	runtime.LockOSThread()
	code := make(chan int)
	go func() { code <- Main(os.Args, os.Stdin, os.Stdout, os.Stderr) }()
	os.Exit(<-code)
}

// Main runs the program and returns its exit code.
func Main(args []string, stdin, stdout, stderr *os.File) int {
	ctx, stop := interruptible()
	defer stop()
	if run := builtinProgram(filepath.Base(args[0])); run != nil {
		return run(ctx, args[1:], stdout, stderr)
	}
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.command()
	root.SetArgs(args[1:])
	err := root.ExecuteContext(ctx)
	code := a.finish(err)
	if code == exitFailed && ctx.Err() != nil {
		return exitInterrupted
	}
	return code
}
