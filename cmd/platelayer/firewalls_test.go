package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestFirewalls brings a topology up on machines with the rule sets that
// ci/firewalls wrote, as the iptables that Debian's machines have restores them
// and as the older one does.
func TestFirewalls(t *testing.T) {
	needsRoot(t)
	if _, err := exec.LookPath("iptables-restore"); err != nil {
		t.Fatalf("needs what ci/install installs: %v", err)
	}
	for _, set := range []struct{ rules, legacy string }{
		{"docker", ""}, {"docker", "-legacy"}, {"ufw", ""}, {"firewalld", ""}, {"all", ""}, {"all", "-legacy"},
	} {
		t.Run(set.rules+set.legacy, func(t *testing.T) {
			runScripts(t, "testdata/firewalls", "RULES="+set.rules, "LEGACY="+set.legacy)
		})
	}
}

// firewallCommand: `firewall` restores the rule set $RULES in $MACHINE, with the
// interfaces that its rules name, and has bridges' packets filtered where the
// kernel can. $LEGACY chooses the older iptables.
func firewallCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: firewall")
	}
	in := func(program string, args ...string) {
		c := exec.Command("nsenter", append([]string{"--net=" + ts.Getenv("MACHINE"), program}, args...)...)
		if out, err := c.CombinedOutput(); err != nil {
			ts.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
		}
	}
	rules, err := filepath.Abs(filepath.Join("testdata/firewalls", ts.Getenv("RULES")))
	if err != nil {
		ts.Fatalf("%v", err)
	}
	if all, err := os.ReadFile(rules + ".v4"); err == nil && strings.Contains(string(all), "docker0") {
		for name, address := range map[string]string{"docker0": "172.17.0.1/16", "br-shop": "172.28.0.1/16"} {
			in("ip", "link", "add", name, "type", "bridge")
			in("ip", "addr", "add", address, "dev", name)
			in("ip", "link", "set", name, "up")
		}
	}
	in("sysctl", "-q", "-e", "-w", "net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1", "net.bridge.bridge-nf-call-arptables=1")
	in("sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=1") // most distributions'
	restored := 0
	for _, by := range []struct{ ending, program, flag string }{
		{"sysctl", "sysctl", "-qp"},
		{"v4", "iptables" + ts.Getenv("LEGACY") + "-restore", ""},
		{"v6", "ip6tables" + ts.Getenv("LEGACY") + "-restore", ""},
		{"nft", "nft", "-f"},
	} {
		path := rules + "." + by.ending
		if _, err := os.Stat(path); err != nil {
			continue // the set has none
		}
		in(by.program, strings.Fields(by.flag+" "+path)...)
		restored++
	}
	if restored == 0 {
		ts.Fatalf("there is no rule set %s", rules)
	}
}
