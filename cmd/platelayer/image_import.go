package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"platelayer/containers/image"
)

func (a *app) imageImportCommand() *cobra.Command {
	var o image.ImportOptions
	c := a.jsonFlag(&cobra.Command{
		Use:   "import TAR|- NAME",
		Short: "Make an image of the tar of a root folder",
		Long: `Make an image of one layer from the tar of a root folder, packed by gzip, zstd
or bzip2 or not. A change is one of a Dockerfile's instructions CMD, ENTRYPOINT, ENV,
EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR.
SOURCE_DATE_EPOCH, in seconds, is when the image was made: with it, the same tar
gives the same digest.`,
		Example: `  platelayer image import rootfs.tar.gz shop/base:1 -c 'CMD ["/bin/sh"]'
  mmdebstrap --variant=minbase bookworm - | platelayer image import - debian:12`,
		Args:              atLeast(2, "image import needs a tar and a name"),
		ValidArgsFunction: a.completeSecond,
		RunE: func(c *cobra.Command, args []string) error {
			if err := atMost(2)(c, args); err != nil {
				return err
			}
			s, err := a.images("import images")
			if err != nil {
				return err
			}
			if o.Name, err = newName(args[1]); err != nil {
				return err
			}
			if o.Created, err = buildTime(); err != nil {
				return err
			}
			f, err := a.archiveFile(args[0], "image import TAR NAME")
			if err != nil {
				return err
			}
			view := newTransfers(a, "import")
			defer view.done()
			o.Progress = view.tell
			i, err := s.Import(c.Context(), f, o)
			view.done()
			if err != nil {
				return fmt.Errorf("cannot import %s: %w", f.Name(), err)
			}
			if a.json {
				return a.printJSON(map[string]string{"name": o.Name, "digest": i.Digest.String()})
			}
			fmt.Fprintf(a.stdout, "%s %s\n", shortName(o.Name), i.Digest)
			return nil
		},
	})
	c.Flags().StringArrayVarP(&o.Changes, "change", "c", nil, "change its configuration: 'ENV A=B', 'CMD [\"/bin/sh\"]', ...")
	c.Flags().StringVarP(&o.Comment, "message", "m", "", "a comment for its history")
	return c
}

// buildTime is when what is built now was built (reproducible-builds.org,
// SOURCE_DATE_EPOCH).
func buildTime() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Now(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<36 {
		return time.Time{}, &usageError{fmt.Errorf("SOURCE_DATE_EPOCH is %q, not a number of seconds", text)}
	}
	return time.Unix(seconds, 0), nil
}
