package topology

import (
	"fmt"
	"regexp"
)

// SwitchHost is the Switch of a cluster that the machine has a bridge into.
const SwitchHost = "host"

// maxAttach is how many interfaces a cluster takes from the machine: what they
// were is kept on the bridge itself, which has little room.
const maxAttach = 8

// attach reads which of the machine's interfaces belong to the cluster.
func (l *loader) attach(c *clusterDraft) {
	if textOf(c.body.get("switch")) == SwitchHost {
		c.out.Switch = SwitchHost
	}
	n := c.body.get("attach")
	switch {
	case n == nil:
		return
	case c.out.Switch == "" && !c.body.spoiled("switch"):
		l.spoil(n, "attach is set although the machine has no bridge into the cluster", "add switch: host")
		return
	case len(n.items) > maxAttach:
		l.spoil(n, fmt.Sprintf("%d interfaces are attached", len(n.items)), fmt.Sprintf("at most %d; put more into a bridge of your own", maxAttach))
		return
	}
	for _, item := range n.good() {
		if !regexp.MustCompile(hostInterfacePattern).MatchString(item.text) || item.text == "." || item.text == ".." {
			l.spoil(item, fmt.Sprintf("%s is not an interface's name", quoted(item.text)), "one of those that ip link shows, at most 15 characters")
			continue
		}
		if item.text == "lo" {
			l.spoil(item, "lo cannot be attached", "it is the machine's loopback interface")
			continue
		}
		if first, twice := l.attached[item.text]; twice {
			l.spoil(item, fmt.Sprintf("%s is attached twice", item.text), fmt.Sprintf("it is in line %d already: remove one", first.line))
			continue
		}
		if l.attached == nil {
			l.attached = map[string]position{}
		}
		l.attached[item.text] = item.position
		c.out.Attach = append(c.out.Attach, item.text)
	}
}
