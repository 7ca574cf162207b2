package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"platelayer/containers/image"
)

// inspectedImage is what `image inspect` prints: the image's own documents, and
// what the store knows.
type inspectedImage struct {
	Names    []string         `json:"names"`
	Digest   string           `json:"digest"`
	Index    string           `json:"index"` // "" is none
	ID       string           `json:"id"`
	Size     int64            `json:"size"`
	UsedBy   []string         `json:"used_by"`
	Layers   []inspectedLayer `json:"layers"`
	Manifest any              `json:"manifest"`
	Config   any              `json:"config"` // with the history
}

type inspectedLayer struct {
	Digest   string `json:"digest"`
	Size     int64  `json:"size"`
	DiffID   string `json:"diff_id"`
	ChainID  string `json:"chain_id"`
	Unpacked string `json:"unpacked,omitempty"` // its folder
}

func (a *app) imageInspectCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:        "inspect IMAGE...",
		SuggestFor: []string{"history"},
		Short:      "Print all about images as JSON: manifest, configuration with history, layers",
		Long: `Print all about images as JSON: names, digests, size in bytes, layers and where they
are unpacked, manifest, configuration with history. --format takes parts of it for each
image by a template of Go's text/template, with the names that the JSON has; {{json .config}}
prints a part as JSON.`,
		Example: `  platelayer image inspect shop/web
  platelayer image inspect --format '{{.digest}} {{json .config.config.Cmd}}' shop/web shop/db`,
		Args:              atLeast(1, "image inspect needs an image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.images("see the images of this machine")
			if err != nil {
				return err
			}
			held, err := s.Holders()
			if err != nil {
				return err
			}
			var all []inspectedImage
			for _, text := range args {
				i, err := s.Find(text)
				if err != nil {
					return err
				}
				names, err := s.NamesOf(i.Digest.Hex)
				if err != nil {
					return err
				}
				one := inspected(s, i)
				one.Names = append(one.Names, names.Meant...)
				one.UsedBy = append(one.UsedBy, held[i.Digest]...)
				all = append(all, one)
			}
			if format != "" {
				return a.printFormat(all, format)
			}
			return a.printJSON(all)
		},
	}
	c.Flags().StringVar(&format, "format", "", "print what this template takes of each image")
	return c
}

// printFormat fills a template with each image's JSON, a line each.
func (a *app) printFormat(all []inspectedImage, format string) error {
	t, err := template.New("--format").Option("missingkey=error").Funcs(template.FuncMap{"json": func(v any) (string, error) {
		text, err := json.Marshal(v)
		return string(text), err
	}}).Parse(format)
	if err != nil {
		return &usageError{err}
	}
	var lines strings.Builder
	for _, i := range all {
		text, err := json.Marshal(i)
		if err != nil {
			return err
		}
		var values map[string]any
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&values); err != nil {
			return err
		}
		if err := t.Execute(&lines, values); err != nil {
			return &usageError{err}
		}
		lines.WriteString("\n")
	}
	_, err = io.WriteString(a.stdout, harmless(lines.String()))
	return err
}

func inspected(s *image.Store, i *image.Image) inspectedImage {
	one := inspectedImage{Names: []string{}, Digest: i.Digest.String(), ID: i.Manifest.Config.Digest.String(), Size: i.Size(),
		UsedBy: []string{}, Layers: []inspectedLayer{}, Manifest: i.Manifest, Config: i.Config}
	if i.Index.Hex != "" {
		one.Index = i.Index.String()
	}
	for n := range i.Layers {
		l := &i.Layers[n]
		layer := inspectedLayer{Digest: l.Digest.String(), Size: l.Size, DiffID: l.DiffID.String(), ChainID: l.ChainID.String()}
		if s.Unpacked(l) {
			layer.Unpacked = s.Tree(l)
		}
		one.Layers = append(one.Layers, layer)
	}
	return one
}
