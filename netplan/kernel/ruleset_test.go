package kernel

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"

	"platelayer/netplan"
)

// filterSamples differ in their sets, their rules and their chains.
func filterSamples() map[string]*netplan.Node {
	divert := func(own ...string) *netplan.Divert {
		return &netplan.Divert{Mark: 1, Port: 5, Hold: true, Own: prefixes(own...)}
	}
	plain := divert("10.0.0.0/24", "10.0.1.0/24", "ff00::/8")
	plain.Origins = []netplan.Origin{{Dev: "to-lan", From: prefixes("10.0.0.0/24", "fe80::/10")}, {Dev: "to-far", From: prefixes("10.0.1.0/24")}}
	plain.Strangers = &netplan.Strangers{Links: prefixes("10.0.0.0/24"), Known: addrs("10.0.0.1", "10.0.0.2")}
	more := divert("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "240.0.0.0/4", "ff00::/8")
	more.Origins = []netplan.Origin{{Dev: "to-lan", From: prefixes("10.0.0.0/24", "10.0.2.0/24")}}
	more.Strangers = &netplan.Strangers{Links: prefixes("10.0.0.0/24", "10.0.2.0/24"), Known: addrs("10.0.0.1", "10.0.0.3", "10.0.2.1")}
	wider := divert("10.0.0.0/16", "fd00::/8", "ff00::/8")
	wider.Hold = false
	wider.Strangers = &netplan.Strangers{Links: prefixes("10.0.0.0/16", "fd00::/64"), Known: addrs("10.0.0.1", "fd00::1")}
	forwarded := divert("10.0.0.0/24", "10.0.1.0/24")
	forwarded.Strangers = &netplan.Strangers{Links: prefixes("10.0.0.0/24"), Known: addrs("10.0.0.1"), Forwarded: true}
	apart := []netplan.Pair{{In: "to-lan", Out: "to-far"}, {In: "to-far", Out: "to-lan"}}
	return map[string]*netplan.Node{
		"plain": {Divert: plain}, "more": {Divert: more}, "wider": {Divert: wider}, "bare": {Divert: divert("10.0.0.0/24")},
		"forwarded": {Divert: forwarded, Apart: apart}, "apart": {Apart: apart}, "one way": {Apart: apart[:1], Divert: plain}, "none": {},
	}
}

// TestAmend goes from each filter to each other one: the kernel has then what it
// would have if there had been no other before.
func TestAmend(t *testing.T) {
	all := filterSamples()
	inNewNetNS(t, func() error {
		fresh := map[string]string{}
		for name, n := range all {
			text, err := remade(n)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			fresh[name] = text
		}
		for from, old := range all {
			for to, n := range all {
				if _, err := remade(old); err != nil {
					return fmt.Errorf("%s: %w", from, err)
				}
				if _, _, err := settleFilter(n); err != nil {
					return fmt.Errorf("%s to %s: %w", from, to, err)
				}
				text, err := listRuleset()
				if err != nil {
					return err
				}
				if text != fresh[to] {
					t.Errorf("from %s to %s it is\n%s\nwant\n%s", from, to, text, fresh[to])
				}
				if _, sent, err := settleFilter(n); err != nil || sent != 0 {
					t.Errorf("%s, and again, sent %d: %v", to, sent, err)
				}
			}
		}
		return nil
	})
}

// TestAmendKeeps has what does not differ go on: the rules, and the sets with
// what packets have put into them.
func TestAmendKeeps(t *testing.T) {
	all := filterSamples()
	inNewNetNS(t, func() error {
		if _, err := remade(all["plain"]); err != nil {
			return err
		}
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Name: filterTable, Family: nftables.TableFamilyINet}
		sought := &nftables.Set{Table: table, Name: "sought4", HasTimeout: true, KeyType: nftables.TypeIPAddr}
		if err := conn.SetAddElements(sought, []nftables.SetElement{{Key: []byte{10, 0, 0, 9}}}); err != nil {
			return err
		}
		if err := conn.Flush(); err != nil {
			return err
		}
		chains := []string{divertChain, all["plain"].Divert.Strangers.Chain(), originChain}
		handles := func() (all []uint64, err error) {
			for _, chain := range chains {
				rules, err := conn.GetRules(table, &nftables.Chain{Name: chain})
				if err != nil {
					return nil, err
				}
				for _, r := range rules {
					all = append(all, r.Handle)
				}
			}
			return all, nil
		}
		before, err := handles()
		if err != nil {
			return err
		}
		if _, sent, err := settleFilter(all["more"]); err != nil || sent != 1 {
			return fmt.Errorf("sent %d: %w", sent, err)
		}
		after, err := handles()
		if err != nil {
			return err
		}
		if len(before) == 0 || !slices.Equal(before, after) {
			t.Errorf("the rules were %v and are %v", before, after)
		}
		elements, err := conn.GetSetElements(sought)
		if err != nil || len(elements) != 1 {
			t.Errorf("what was sought is %v: %v", elements, err)
		}
		return nil
	})
}

// TestAmendForeign has a table that somebody else has put there, or changed,
// make way.
func TestAmendForeign(t *testing.T) {
	n := filterSamples()["plain"]
	inNewNetNS(t, func() error {
		want, err := remade(n)
		if err != nil {
			return err
		}
		for _, script := range []string{
			"delete table inet platelayer; add table inet platelayer; add chain inet platelayer divert { type filter hook input priority 0; policy drop; }",
			"add chain inet platelayer divert { policy drop; }",
			"add table inet platelayer { flags dormant; }",
			"add rule inet platelayer divert accept",
			"insert rule inet platelayer origin drop",
			"flush chain inet platelayer origin",
			"flush set inet platelayer own4",
			"add element inet platelayer known4 { 10.9.9.9 }",
			"delete element inet platelayer origin4 { to-lan . 10.0.0.0/24 }",
			"add chain inet platelayer more; add rule inet platelayer more drop",
			"add chain inet platelayer more { type filter hook forward priority 5; policy drop; }",
			"add set inet platelayer more { type ipv4_addr; }",
			"delete table inet platelayer; add table inet platelayer; add set inet platelayer own4 { type ipv6_addr; }",
		} {
			c := exec.Command("nft", "-f", "-")
			c.Stdin = strings.NewReader(strings.ReplaceAll(script, "; add ", "\nadd ") + "\n")
			if out, err := c.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", script, err, out)
			}
			if _, sent, err := settleFilter(n); err != nil || sent != 1 {
				t.Errorf("after %q sent %d: %v", script, sent, err)
			}
			if text, err := listRuleset(); err != nil || text != want {
				t.Errorf("after %q it is\n%s\n%v", script, text, err)
			}
		}
		return nil
	})
}

func inNewNetNS(t *testing.T, do func() error) {
	t.Helper()
	err := onOwnThread(func() error {
		if _, err := enterNewNetNS("ruleset", nil); err != nil {
			return err
		}
		return do()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// remade is a filter where none was before, as nft(8) shows it.
func remade(n *netplan.Node) (string, error) {
	conn, err := nftables.New()
	if err != nil {
		return "", err
	}
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		return "", err
	}
	if _, _, err := settleFilter(n); err != nil {
		return "", err
	}
	return listRuleset()
}

func listRuleset() (string, error) {
	out, err := exec.Command("nft", "--stateless", "list", "ruleset").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("nft: %w: %s", err, out)
	}
	return sortRuleset(string(out)), nil
}

// sortRuleset sorts what has no order in what nft(8) lists: tables, sets and
// chains, elements.
func sortRuleset(text string) string {
	tables := strings.SplitAfter(text, "\n}\n")
	for i, table := range tables {
		head, body, _ := strings.Cut(table, "{\n")
		blocks := strings.Split(strings.TrimSuffix(body, "}\n"), "\t}\n")
		for i, b := range blocks {
			blocks[i] = strings.TrimSpace(b)
			if head, list, is := strings.Cut(blocks[i], "elements = {"); is {
				elements := strings.Split(strings.TrimSuffix(list, "}"), ",")
				for i, e := range elements {
					elements[i] = strings.TrimSpace(e)
				}
				slices.Sort(elements)
				blocks[i] = head + strings.Join(elements, "\n")
			}
		}
		slices.Sort(blocks)
		tables[i] = head + strings.Join(blocks, "\n")
	}
	slices.Sort(tables)
	return strings.Join(tables, "\n")
}
