package backbone

import (
	"strings"

	"github.com/miekg/dns"
)

// take adds to r what a resolver's answer says about the name that it was
// asked about and the names that this is an alias of, and leaves out all else:
// an answer is no occasion to tell of other names (RFC 2181, section 5.4.1).
// It ends before the first alias of a name of ours, which home is then: what a
// resolver outside says about that is not true here.
func (z *zones) take(r, answer *dns.Msg, name string) (home string) {
	chain := z.chain(answer, name)
	last := chain[len(chain)-1]
	if len(chain) > 1 && z.owns(last) {
		home, chain = last, chain[:len(chain)-1]
	}
	about := map[string]bool{}
	for _, owner := range chain {
		about[owner] = true
	}
	for _, rr := range answer.Answer {
		owner := strings.ToLower(rr.Header().Name)
		if about[owner] || isDNAME(rr) && !z.owns(owner) && above(owner, chain) {
			r.Answer = append(r.Answer, rr)
		}
	}
	r.Ns = nil
	for _, rr := range answer.Ns {
		owner := strings.ToLower(rr.Header().Name)
		if home == "" && !z.owns(owner) && (isProof(rr) || above(owner, chain)) {
			r.Ns = append(r.Ns, rr)
		}
	}
	return home
}

// chain is a name and those that it is an alias of, up to the first of ours.
func (z *zones) chain(answer *dns.Msg, name string) []string {
	chain := []string{strings.ToLower(name)}
	if qtype := answer.Question[0].Qtype; qtype == dns.TypeCNAME || qtype == dns.TypeANY {
		return chain
	}
	alias := map[string]string{}
	for _, rr := range answer.Answer {
		if c, ok := rr.(*dns.CNAME); ok {
			alias[strings.ToLower(c.Hdr.Name)] = strings.ToLower(c.Target)
		}
	}
	const longest = 16 // longer ones are loops, or meant to keep us busy
	for range min(len(alias), longest) {
		next, ok := alias[chain[len(chain)-1]]
		if !ok {
			break
		}
		chain = append(chain, next)
		if z.owns(next) {
			break
		}
	}
	return chain
}

// owns tells whether what there is under a name is ours to say.
func (z *zones) owns(name string) bool { return z.find(name) != nil || z.zoneOf(name) != "" }

// above tells whether a name is one of others, or a domain that one is in.
func above(name string, others []string) bool {
	for _, o := range others {
		if dns.IsSubDomain(name, o) {
			return true
		}
	}
	return false
}

// isDNAME tells whether a record redirects a domain, or signs one that does.
func isDNAME(rr dns.RR) bool {
	sig, ok := rr.(*dns.RRSIG)
	return ok && sig.TypeCovered == dns.TypeDNAME || rr.Header().Rrtype == dns.TypeDNAME
}

// isProof tells whether a record proves that there is nothing (RFC 4035,
// section 3.1.3), which those of other names do.
func isProof(rr dns.RR) bool {
	switch rr.Header().Rrtype {
	case dns.TypeNSEC, dns.TypeNSEC3, dns.TypeRRSIG:
		return true
	}
	return false
}
