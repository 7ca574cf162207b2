package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// listedImage is what `image ls --json` prints of an image under one name.
type listedImage struct {
	Name    string    `json:"name,omitempty"`
	Digest  string    `json:"digest"`
	Index   string    `json:"index,omitempty"`
	ID      string    `json:"id"` // the configuration's digest, Docker's image id
	Created time.Time `json:"created"`
	Size    int64     `json:"size"` // of its blobs, in bytes
	Layers  int       `json:"layers"`
	UsedBy  []string  `json:"used_by"`
}

func (a *app) imageLsCommand() *cobra.Command {
	var digests bool
	c := a.jsonFlag(&cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the images, and which topologies run them",
		Args:    atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.images("see the images of this machine")
			if err != nil {
				return err
			}
			done, err := s.Use(c.Context())
			if err != nil {
				return err
			}
			defer done()
			// What is damaged doesn't hide the others.
			all, damage := s.List()
			held, err := s.Holders()
			if err != nil {
				return err
			}
			listed := []listedImage{}
			for _, i := range all {
				l := listedImage{Name: i.Name, Digest: i.Digest.String(), ID: i.Manifest.Config.Digest.String(), Created: i.Config.Created.Time,
					Size: i.Size(), Layers: len(i.Layers), UsedBy: append([]string{}, held[i.Digest]...)}
				if i.Index.Hex != "" {
					l.Index = i.Index.String()
				}
				slices.Sort(l.UsedBy)
				listed = append(listed, l)
			}
			if a.json {
				err = a.printJSON(listed)
			} else {
				err = a.printImages(listed, digests)
			}
			if err != nil {
				return err
			}
			return damage
		},
	})
	c.Flags().BoolVar(&digests, "digests", false, "print whole digests, and those of the indexes that images are of")
	return c
}

func (a *app) printImages(all []listedImage, digests bool) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	head := "DIGEST"
	if digests {
		head = "DIGEST\tINDEX"
	}
	fmt.Fprintf(w, "NAME\t%s\tCREATED\tSIZE\tUSED BY\n", head)
	for _, l := range all {
		name, digest, by := "-", l.Digest, "-"
		if l.Name != "" {
			name = shortName(l.Name)
		}
		if digests {
			digest += "\t" + cmp.Or(l.Index, "-")
		} else {
			digest = strings.TrimPrefix(digest, "sha256:")[:12]
		}
		if len(l.UsedBy) > 0 {
			by = strings.Join(l.UsedBy, ", ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, digest, dated(l.Created), size(uint64(l.Size)), by)
	}
	return w.Flush()
}

// dated: an image that says nothing, or that was made reproducible, has no date.
func dated(t time.Time) string {
	if t.Unix() <= 0 {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04")
}
