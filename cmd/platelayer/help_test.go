package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestExamples wants an example in the help of each command that does something,
// with flags that it has.
func TestExamples(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, s := range c.Commands() {
			walk(s)
		}
		if len(c.Commands()) > 0 || c.Hidden {
			return
		}
		found := false
		for line := range strings.Lines(c.Example) {
			_, line, own := strings.Cut(line, c.CommandPath())
			found = found || own
			line, _, _ = strings.Cut(line, " && ")
			line, _, _ = strings.Cut(line, " | ")
			line, _, _ = strings.Cut(line, " -- ")
			if err := c.ParseFlags(strings.Fields(line)); own && err != nil {
				t.Errorf("%s:%s: %v", c.CommandPath(), line, err)
			}
		}
		if !found {
			t.Errorf("%s has no example: %q", c.CommandPath(), c.Example)
		}
	}
	walk((&app{}).command())
}
