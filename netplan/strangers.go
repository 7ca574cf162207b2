package netplan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Strangers bounds for how many addresses at a time a router looks on its own
// links that no node has. Linux keeps at most 1024 neighbours for all namespaces
// of the machine together (net.ipv4.neigh.default.gc_thresh3, arp(7)), and those
// that are looked for in vain cannot make room: who sends to every address of
// a large subnet would have nobody on the machine find anybody.
type Strangers struct {
	Links []netip.Prefix `json:"links"` // where the node delivers itself, sorted and without overlap
	Known []netip.Addr   `json:"known"` // nodes' addresses there, sorted
	// Forwarded has the node look at what it forwards, after the interfaces that
	// are apart, instead of at what comes in: what is dropped does not count.
	Forwarded bool `json:"forwarded,omitempty"`
}

const (
	// StrangersAtATime leaves more than half of the table to others.
	StrangersAtATime = 400
	// StrangersSeconds is how long one counts: as long as it is looked for, three
	// times a second apart, and a little more.
	StrangersSeconds = 5
)

// strangers plans them for the backbone, which is the first of the nodes.
func strangers(nodes []Node) *Strangers {
	s := Strangers{Forwarded: len(nodes[0].Apart) > 0}
	for _, f := range nodes[0].Interfaces {
		if f.Linked() || f.NoPrefixRoute {
			continue // there are two addresses, or the way is through a gateway
		}
		for _, a := range f.Addresses {
			s.Links = append(s.Links, a.Masked())
		}
	}
	s.Links = apartPrefixes(s.Links)
	if len(s.Links) == 0 {
		return nil
	}
	for i := range nodes {
		for _, f := range nodes[i].Interfaces {
			for _, a := range f.Addresses {
				if slices.ContainsFunc(s.Links, func(p netip.Prefix) bool { return p.Contains(a.Addr()) }) {
					s.Known = append(s.Known, a.Addr())
				}
			}
		}
	}
	slices.SortFunc(s.Known, netip.Addr.Compare)
	s.Known = slices.Compact(s.Known)
	return &s
}

// Chain is what the chain with the bound is called: another where it is at a hook,
// for none can be moved to one.
func (s *Strangers) Chain() string {
	if s.Forwarded {
		return "strangers-forwarded"
	}
	return "strangers"
}

// Text is the bound as nft(8) takes it; sets hold the known ones and the links.
func (s *Strangers) Text() string {
	var w strings.Builder
	chain := s.Chain()
	for _, version := range []string{"4", "6"} {
		links, known := s.words(version)
		if links == "" {
			continue
		}
		word := ipWord(version)
		if s.Forwarded {
			fmt.Fprintf(&w, "nft add rule inet platelayer %s %s daddr { %s } accept\n", chain, word, known)
			fmt.Fprintf(&w, "nft add rule inet platelayer %s %s daddr != { %s } accept\n", chain, word, links)
		}
		fmt.Fprintf(&w, "nft add rule inet platelayer %s update @sought%s { %s daddr timeout %ds } accept\n", chain, version, word, StrangersSeconds)
		fmt.Fprintf(&w, "nft add rule inet platelayer %s meta nfproto ipv%s drop\n", chain, version)
	}
	return w.String()
}

// early are the rules of the divert chain by which what goes to known nodes
// passes with one look into a set.
func (s *Strangers) early() string {
	var w strings.Builder
	for _, version := range []string{"4", "6"} {
		links, known := s.words(version)
		if links == "" {
			continue
		}
		fmt.Fprintf(&w, "nft add rule inet platelayer divert %s daddr { %s } return\n", ipWord(version), known)
		if !s.Forwarded {
			fmt.Fprintf(&w, "nft add rule inet platelayer divert %s daddr { %s } goto strangers\n", ipWord(version), links)
		}
	}
	return w.String()
}

// words lists the links and the known ones of an IP version.
func (s *Strangers) words(version string) (links, known string) {
	var on, nodes []string
	for _, p := range s.Links {
		if p.Addr().Is4() == (version == "4") {
			on = append(on, p.String())
		}
	}
	for _, a := range s.Known {
		if a.Is4() == (version == "4") {
			nodes = append(nodes, a.String())
		}
	}
	return strings.Join(on, ", "), strings.Join(nodes, ", ")
}

func ipWord(version string) string {
	if version == "6" {
		return "ip6"
	}
	return "ip"
}
