package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"platelayer/containers/image"
)

// listedImage is what `image ls --json` prints of an image under one name.
type listedImage struct {
	Name    string    `json:"name,omitempty"`
	Digest  string    `json:"digest"`
	Index   string    `json:"index,omitempty"`
	ID      string    `json:"id"` // the configuration's digest, Docker's image id
	Created time.Time `json:"created"`
	Size    int64     `json:"size"`   // of its blobs, in bytes
	Unique  int64     `json:"unique"` // of those that no other image has
	Layers  int       `json:"layers"`
	UsedBy  []string  `json:"used_by"`
}

func (a *app) imageLsCommand() *cobra.Command {
	var digests bool
	c := a.jsonFlag(&cobra.Command{
		Use:        "ls",
		SuggestFor: []string{"images"},
		Aliases:    []string{"list"},
		Short:      "List the images, and which topologies run them",
		Long:       "List the images, and which topologies run them. With --quiet the digest of each, alone.",
		Example: `  platelayer image ls
  platelayer image ls --json`,
		Args: atMost(0),
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
			unique := uniqueSizes(all)
			listed := []listedImage{}
			for _, i := range all {
				l := listedImage{Name: i.Name, Digest: i.Digest.String(), ID: i.Manifest.Config.Digest.String(), Created: i.Config.Created.Time,
					Size: i.Size(), Unique: unique[i.Digest], Layers: len(i.Layers), UsedBy: append([]string{}, held[i.Digest]...)}
				if i.Index.Hex != "" {
					l.Index = i.Index.String()
				}
				slices.Sort(l.UsedBy)
				listed = append(listed, l)
			}
			switch {
			case a.json:
				err = a.printJSON(listed)
			case a.quiet:
				err = a.printDigests(listed)
			default:
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

// uniqueSizes are the bytes of each image's blobs that no other has: what goes
// with it.
func uniqueSizes(all []image.Named) map[v1.Hash]int64 {
	sizes := map[v1.Hash]map[v1.Hash]int64{} // of images' blobs
	in := map[v1.Hash]int{}                  // how many images have a blob
	for _, i := range all {
		if sizes[i.Digest] != nil { // by another name
			continue
		}
		own := map[v1.Hash]int64{i.Manifest.Config.Digest: i.Manifest.Config.Size}
		for _, l := range i.Layers {
			own[l.Digest] = l.Size
		}
		sizes[i.Digest] = own
		for h := range own {
			in[h]++
		}
	}
	unique := map[v1.Hash]int64{}
	for h, own := range sizes {
		unique[h] = 0
		for blob, size := range own {
			if in[blob] == 1 {
				unique[h] += size
			}
		}
	}
	return unique
}

// printDigests prints each image once, whatever names it has.
func (a *app) printDigests(all []listedImage) error {
	told := map[string]bool{}
	for _, l := range all {
		if told[l.Digest] {
			continue
		}
		told[l.Digest] = true
		if _, err := fmt.Fprintln(a.stdout, l.Digest); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printImages(all []listedImage, digests bool) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	head := "DIGEST"
	if digests {
		head = "DIGEST\tINDEX"
	}
	fmt.Fprintf(w, "NAME\t%s\tCREATED\tSIZE\tUNIQUE\tUSED BY\n", head)
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
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", name, digest, dated(l.Created), size(uint64(l.Size)), size(uint64(l.Unique)), by)
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
