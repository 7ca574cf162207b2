package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) imageTagCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tag IMAGE NAME...",
		Short: "Give an image more names",
		Long: `Give an image more names, which others that have them lose. IMAGE is a name, or
the first 6 or more digits of its digest.`,
		Example:           `  platelayer image tag shop/web registry.example:5000/shop/web:1.2`,
		Args:              atLeast(2, "image tag needs an image and a name"),
		ValidArgsFunction: a.completeImages,
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.images("name images")
			if err != nil {
				return err
			}
			var names []string
			var problems []error
			for _, text := range args[1:] {
				name, err := newName(text)
				names, problems = append(names, name), append(problems, err)
			}
			if err := errors.Join(problems...); err != nil {
				return err
			}
			done, err := s.Use(c.Context())
			if err != nil {
				return err
			}
			defer done()
			i, err := s.Find(args[0])
			if err != nil {
				return err
			}
			for _, name := range names {
				if err := s.Name(c.Context(), name, i); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
