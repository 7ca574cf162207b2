package topology

import (
	"fmt"
	"strconv"
)

// Bounds of a station's log.
const (
	leastLogSize = 4 << 10 // bytes
	mostLogFiles = 100
)

// logging reads the bounds of a station's log.
func (l *loader) logging(n *node) (out Logging) {
	if d := n.get("driver"); d != nil && d.text != "json-file" && d.text != "local" {
		hint := "json-file and local are taken, for logs that platelayer keeps; to send them elsewhere run platelayer logs -f"
		if d.text == "none" {
			hint = "platelayer keeps every station's output, within bounds; remove it, or write options: {max-size: 4k, max-file: 1}"
		}
		l.spoil(d, fmt.Sprintf("there is no log driver %s", quoted(d.text)), hint)
	}
	options := n.get("options")
	if s := options.get("max-size"); s != nil {
		size, ok := parseBytes(s.text)
		switch {
		case !ok:
			l.spoil(s, fmt.Sprintf("%s is not a size", quoted(s.text)), "write bytes, or a number with k, m or g: 10m")
		case size < leastLogSize:
			l.spoil(s, fmt.Sprintf("max-size %s is too small", s.text), "at least 4k; 10m is usual")
		}
		out.MaxSize = size
	}
	if f := options.get("max-file"); f != nil {
		out.MaxFiles, _ = strconv.Atoi(f.text)
		if out.MaxFiles < 1 || out.MaxFiles > mostLogFiles {
			l.spoil(f, fmt.Sprintf("max-file cannot be %s", f.text), fmt.Sprintf("from 1 to %d; 2 is usual", mostLogFiles))
		}
	}
	return out
}
