package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"platelayer/containers/image"
)

func (a *app) imagePushCommand() *cobra.Command {
	var plainHTTP bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "push IMAGE [DESTINATION]",
		Short: "Send an image to a registry",
		Long: `Send an image to a registry: under its own name, or as DESTINATION. What the
registry has is not sent again. An image that was pulled keeps its digest; layers
that are not packed, like those of an image loaded or made here, are packed first,
which makes another digest. The digest that the registry has is printed.`,
		Example:           `  platelayer image push shop/web registry.example:5000/shop/web:1.2`,
		Args:              between(1, 2, "platelayer image push IMAGE [DESTINATION]"),
		ValidArgsFunction: a.completeImages,
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := image.ParseReference(args[len(args)-1])
			if err != nil {
				return &usageError{err}
			}
			return a.imagePush(c.Context(), args[0], ref, plainHTTP)
		},
	})
	c.Flags().BoolVar(&plainHTTP, "plain-http", false, "speak to the registry without TLS")
	return c
}

// between checks the number of arguments.
func between(least, most int, usage string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return &usageError{fmt.Errorf("usage: %s", usage)}
		}
		return nil
	}
}

func (a *app) imagePush(ctx context.Context, name string, to image.Reference, plainHTTP bool) error {
	store, err := a.images("push images")
	if err != nil {
		return err
	}
	done, err := store.Use(ctx)
	if err != nil {
		return err
	}
	defer done()
	i, err := store.Find(name)
	if err != nil {
		return err
	}
	view := newTransfers(a, "push")
	defer view.done()
	registry, err := a.registry(plainHTTP, view.notice)
	if err != nil {
		return err
	}
	defer registry.Close()
	sent, err := registry.Push(ctx, store, i, to, image.AddOptions{Progress: view.tell})
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("cannot push %s: %w", to.Short(), err)
	}
	view.finished(to.String(), to.Short())
	view.done()
	if sent.Digest != i.Digest {
		view.notice(fmt.Sprintf("its layers were packed: %s here is %s there", i.Digest, sent.Digest))
	}
	return a.printTransferred([]transferred{newTransferred(to.String(), sent)})
}
