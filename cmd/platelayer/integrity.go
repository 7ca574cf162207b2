package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/topology"
)

// loadSealed reads the topology file and picks the named stations, or all that
// have a seal.
func (a *app) loadSealed(refs []string) (*topology.Topology, []*topology.Station, error) {
	t, err := a.load(a.path(nil))
	if err != nil {
		return nil, nil, err
	}
	return sealedOf(t, refs)
}

// recordedSealed is loadSealed of a topology as it was brought up, where one is
// named; otherwise of the file.
func (a *app) recordedSealed(refs []string) (*topology.Topology, []*topology.Station, error) {
	if a.name != "" && a.file == "" {
		if t, err := lifecycle.Recorded(a.layout(), a.name); err == nil {
			return sealedOf(t, refs)
		}
	}
	return a.loadSealed(refs)
}

func sealedOf(t *topology.Topology, refs []string) (*topology.Topology, []*topology.Station, error) {
	which, err := lookupAll(t, refs)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range which {
		if len(s.Integrity.Paths) == 0 {
			return nil, nil, &usageError{fmt.Errorf("station %q has no seal: in the file", s.ID())}
		}
	}
	if len(refs) > 0 {
		return t, which, nil
	}
	for i := range t.Clusters {
		for j := range t.Clusters[i].Stations {
			if s := &t.Clusters[i].Stations[j]; len(s.Integrity.Paths) > 0 {
				which = append(which, s)
			}
		}
	}
	return t, which, nil
}

// asTheyAre takes the images that are here, whatever a registry has meanwhile, and
// fetches others.
func (a *app) asTheyAre() lifecycle.ImageOptions {
	o := a.imageOptions(nil)
	o.Pull = topology.PullMissing
	return o
}

func (a *app) sealCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "seal [STATION...]",
		Short: "Write the checksums that sealed files must match",
		Long: `Write the checksums that sealed files must match, into the manifest of each
station. No station named means all with a seal.`,
		Example: `  platelayer seal
  platelayer seal web/lb`,
		RunE: func(c *cobra.Command, refs []string) error {
			t, which, err := a.loadSealed(refs)
			if err != nil {
				return err
			}
			if len(which) == 0 {
				return &usageError{errors.New("no station of this file has a seal")}
			}
			done, err := lifecycle.Seal(c.Context(), a.layout(), t, which, a.asTheyAre())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(done)
			}
			for _, s := range done {
				fmt.Fprintf(a.stdout, "%s: %s in %s\n", s.Container, plural(s.Files, "file"), s.Manifest)
			}
			return nil
		},
	})
}

// verified is what `verify --json` prints.
type verified struct {
	OK       bool                `json:"ok"`
	Stations int                 `json:"stations"`
	Files    []lifecycle.BadFile `json:"bad"`
}

func (a *app) verifyCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "verify [STATION...]",
		Short: "Check the seals of a running or stopped topology",
		Long: `Check the seals of stations, inside those that run and on newly assembled roots
of the others. No station named means all with a seal.`,
		Example: `  platelayer verify
  platelayer verify --json web/lb`,
		RunE: func(c *cobra.Command, refs []string) error {
			t, which, err := a.recordedSealed(refs)
			if err != nil {
				return err
			}
			n, err := lifecycle.Verify(c.Context(), a.layout(), t, which, a.asTheyAre())
			var bad *lifecycle.IntegrityError
			if a.json && (err == nil || errors.As(err, &bad)) {
				result := verified{OK: err == nil, Stations: n, Files: []lifecycle.BadFile{}}
				if bad != nil {
					result.Files = bad.Files
				}
				if printErr := a.printJSON(result); printErr != nil {
					return printErr
				}
				if bad != nil {
					return &exitCode{code: exitIntegrity}
				}
				return nil
			}
			if err != nil {
				return err
			}
			if n == 0 {
				fmt.Fprintf(a.stdout, "%s: no station has a seal\n", t.Name)
				return nil
			}
			fmt.Fprintf(a.stdout, "%s: %s as sealed\n", t.Name, plural(n, "station"))
			return nil
		},
	})
}
