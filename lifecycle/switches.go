package lifecycle

import (
	"os"
	"strings"

	"platelayer/topology"
)

// warnOfFilter tells where the machine's firewall takes part in what crosses
// the machine's own bridges (br_netfilter). No bridge of ours can be left out,
// and the setting is the machine's.
func (k *keeper) warnOfFilter() error {
	value, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err != nil || strings.TrimSpace(string(value)) != "1" {
		return nil // without the module there is no such file
	}
	for i := range k.intent.Topology.Clusters {
		c := &k.intent.Topology.Clusters[i]
		if c.Switch == topology.SwitchHost {
			k.tell(Progress{Notice: "the machine's firewall sees what crosses its bridge into cluster " + c.Name +
				", and may drop it (net.bridge.bridge-nf-call-iptables is 1)"})
		}
	}
	return nil
}
