package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"platelayer/containers/image"
	"platelayer/lifecycle"
)

func (a *app) doctorCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "doctor",
		Short: "Tell what this machine can and cannot do, and the remedy",
		Long: `Tell what this machine can and cannot do, and the remedy. It changes nothing.

To bring a topology file up trusts it as one trusts a root script: it can mount
any folder into a station and run any program. To look at one (check, plan,
config) never harms.`,
		Example: `  platelayer doctor`,
		Args:    atMost(0),
		RunE: func(*cobra.Command, []string) error {
			findings := lifecycle.Doctor()
			lacking := 0
			for _, f := range findings {
				if f.Required && !f.OK {
					lacking++
				}
			}
			if a.json {
				if err := a.printJSON(findings); err != nil {
					return err
				}
			} else {
				for _, f := range findings {
					a.printFinding(f)
				}
			}
			if lacking > 0 {
				return &exitCode{exitUnsupported, fmt.Errorf("%s missing that platelayer needs", plural(lacking, "thing"))}
			}
			return nil
		},
	})
}

func (a *app) printFinding(f lifecycle.Finding) {
	mark := "ok"
	switch {
	case !f.OK && f.Required:
		mark = "MISSING"
	case !f.OK:
		mark = "absent"
	}
	fmt.Fprintf(a.stdout, "%-8s %s: %s\n", mark, f.Name, f.Detail)
	if !f.OK && f.Remedy != "" {
		fmt.Fprintf(a.stdout, "         remedy: %s\n", f.Remedy)
	}
}

// versionInfo is what `version --json` prints.
type versionInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	Arch    string `json:"arch"`
}

func (a *app) versionCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "version",
		Short:   "Tell the program's version",
		Example: `  platelayer version`,
		Args:    atMost(0),
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{Version: "devel", Go: runtime.Version(), Arch: runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				if m := info.Main.Version; m != "" && m != "(devel)" {
					v.Version = m
				}
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value
					}
				}
			}
			if a.json {
				return a.printJSON(v)
			}
			fmt.Fprintf(a.stdout, "platelayer %s %s %s\n", v.Version, v.Go, v.Arch)
			return nil
		},
	})
}

// invoker is whose the files are that a command writes under sudo.
func invoker() image.Owner {
	uid, gid := lifecycle.Invoker()
	return image.Owner{UID: uid, GID: gid}
}
