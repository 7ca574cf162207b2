package kernel

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// ruleset is a table of nftables: what a namespace is to have.
//
// A running one is changed, not put anew in its place. Rules change for a packet
// at once, but it finds in a set what is there by then: one that has begun with
// the rules of before would find theirs empty, and be taken for a stranger.
type ruleset struct {
	table  *nftables.Table
	chains []*chainRules
	sets   []*setElements
	err    error // of the first that could not be described
}

type chainRules struct {
	*nftables.Chain
	rules [][]expr.Any
}

type setElements struct {
	*nftables.Set
	elements []nftables.SetElement // of an interval set, in pairs: where one begins, and its end if it has one
}

func newRuleset(name string) *ruleset {
	return &ruleset{table: &nftables.Table{Name: name, Family: nftables.TableFamilyINet}}
}

func (r *ruleset) chain(c nftables.Chain) *chainRules {
	c.Table = r.table
	r.chains = append(r.chains, &chainRules{Chain: &c})
	return r.chains[len(r.chains)-1]
}

func (c *chainRules) add(exprs ...expr.Any) { c.rules = append(c.rules, exprs) }

// set adds a set, which rules name.
func (r *ruleset) set(s nftables.Set, elements []nftables.SetElement) {
	s.Table = r.table
	r.sets = append(r.sets, &setElements{&s, elements})
}

// concatenated is a set's type of several fields.
func (r *ruleset) concatenated(fields ...nftables.SetDatatype) nftables.SetDatatype {
	kind, err := nftables.ConcatSetType(fields...)
	r.err = cmp.Or(r.err, err)
	return kind
}

// tag is what each of a chain's rules carries as its comment, by which they
// are known.
func (c *chainRules) tag() ([]byte, error) {
	sum := sha256.New()
	for _, rule := range c.rules {
		for _, e := range rule {
			raw, err := expr.Marshal(byte(c.Table.Family), e)
			if err != nil {
				return nil, fmt.Errorf("cannot encode a rule of chain %q: %w", c.Name, err)
			}
			sum.Write(raw)
		}
		sum.Write([]byte{0})
	}
	text := "rules " + hex.EncodeToString(sum.Sum(nil)[:8])
	return append([]byte{0, byte(len(text) + 1)}, append([]byte(text), 0)...), nil // NFTNL_UDATA_RULE_COMMENT
}

func (c *chainRules) send(conn *nftables.Conn) error {
	tag, err := c.tag()
	if err != nil {
		return err
	}
	for _, exprs := range c.rules {
		conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c.Chain, Exprs: exprs, UserData: tag})
	}
	return nil
}

// settle brings the table, of which have is there, to what it is to be, and tells
// whether it was not.
func (r *ruleset) settle(have *nftables.Table) (changed bool, err error) {
	if r.err != nil {
		return false, r.err
	}
	const dormant = nftables.TableFlagDormant // packets pass it by
	if have != nil && have.Flags&dormant == 0 && len(r.chains) > 0 {
		if changed, err = r.amend(); err == nil {
			return changed, nil
		}
		// It is none of ours, or of another shape.
	}
	return true, r.replace(have != nil)
}

// replace makes the table, in one transaction, in the place of one that is there.
func (r *ruleset) replace(there bool) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	if there {
		conn.DelTable(r.table)
	}
	if len(r.chains) > 0 {
		conn.AddTable(r.table)
	}
	for _, c := range r.chains {
		conn.AddChain(c.Chain)
	}
	for _, s := range r.sets {
		if err := conn.AddSet(s.Set, s.elements); err != nil {
			return err
		}
	}
	for _, c := range r.chains {
		if err := c.send(conn); err != nil {
			return err
		}
	}
	return conn.Flush()
}

// amend changes what differs, in one transaction: chains, elements of sets. Sets
// that are no more looked into are taken away by another, after it.
func (r *ruleset) amend() (changed bool, err error) {
	conn, err := nftables.New()
	if err != nil {
		return false, err
	}
	all, err := conn.ListChainsOfTableFamily(r.table.Family)
	if err != nil {
		return false, err
	}
	haveChains := map[string]*nftables.Chain{}
	for _, c := range all {
		if c.Table.Name == r.table.Name {
			haveChains[c.Name] = c
		}
	}
	sets, err := conn.GetSets(r.table)
	if err != nil {
		return false, err
	}
	haveSets := map[string]*nftables.Set{}
	for _, s := range sets {
		haveSets[s.Name] = s
	}
	var stale []*chainRules
	for _, c := range r.chains {
		have := haveChains[c.Name]
		delete(haveChains, c.Name)
		if have == nil {
			conn.AddChain(c.Chain)
			stale = append(stale, c)
			continue
		}
		if !sameHook(have, c.Chain) {
			return false, fmt.Errorf("chain %q is at another hook", c.Name)
		}
		same, err := c.there(conn)
		if err != nil {
			return false, err
		}
		if !same {
			conn.FlushChain(c.Chain)
			stale = append(stale, c)
		}
	}
	changed = len(stale) > 0 || len(haveChains) > 0
	for _, c := range haveChains {
		conn.FlushChain(c)
	}
	for _, s := range r.sets {
		have := haveSets[s.Name]
		delete(haveSets, s.Name)
		if have == nil {
			if err := conn.AddSet(s.Set, s.elements); err != nil {
				return false, err
			}
			changed = true
			continue
		}
		if !sameSet(have, s.Set) {
			return false, fmt.Errorf("set %q is of another kind", s.Name)
		}
		if s.Dynamic { // packets fill it
			continue
		}
		differs, err := s.amend(conn)
		if err != nil {
			return false, err
		}
		changed = changed || differs
	}
	for _, c := range stale {
		if err := c.send(conn); err != nil {
			return false, err
		}
	}
	for _, c := range haveChains { // nothing goes to them any more
		conn.DelChain(c)
	}
	if changed {
		if err := conn.Flush(); err != nil {
			return false, err
		}
	}
	if len(haveSets) == 0 {
		return changed, nil
	}
	for _, s := range haveSets {
		conn.DelSet(s)
	}
	return true, conn.Flush()
}

// there tells whether the kernel has the chain's rules, and no others.
func (c *chainRules) there(conn *nftables.Conn) (bool, error) {
	have, err := conn.GetRules(c.Table, c.Chain)
	if err != nil {
		return false, err
	}
	tag, err := c.tag()
	if err != nil {
		return false, err
	}
	other := func(r *nftables.Rule) bool { return !bytes.Equal(r.UserData, tag) }
	return len(have) == len(c.rules) && !slices.ContainsFunc(have, other), nil
}

func sameHook(have, want *nftables.Chain) bool {
	if have.Policy != nil && *have.Policy != nftables.ChainPolicyAccept {
		return false
	}
	if have.Hooknum == nil || want.Hooknum == nil {
		return have.Hooknum == nil && want.Hooknum == nil
	}
	return have.Type == want.Type && *have.Hooknum == *want.Hooknum && *have.Priority == *want.Priority
}

func sameSet(have, want *nftables.Set) bool {
	return have.KeyType.GetNFTMagic() == want.KeyType.GetNFTMagic() && have.KeyType.Bytes == want.KeyType.Bytes &&
		have.Interval == want.Interval && have.Dynamic == want.Dynamic && have.IsMap == want.IsMap &&
		have.HasTimeout == want.HasTimeout && have.Timeout == want.Timeout && have.Size == want.Size
}

// amend adds the elements that are not there and deletes those that are too
// many; a whole interval in place of one that has another end.
func (s *setElements) amend(conn *nftables.Conn) (changed bool, err error) {
	have, err := conn.GetSetElements(s.Set)
	if err != nil {
		return false, err
	}
	extra := map[string][]nftables.SetElement{}
	for _, e := range s.parts(have) {
		extra[partKey(e)] = e
	}
	var missing, leaving []nftables.SetElement
	for _, e := range s.parts(s.elements) {
		key := partKey(e)
		if _, ok := extra[key]; !ok {
			missing = append(missing, e...)
		}
		delete(extra, key)
	}
	for _, e := range extra {
		leaving = append(leaving, e...)
	}
	if len(leaving) > 0 {
		err = conn.SetDeleteElements(s.Set, leaving)
	}
	if err == nil && len(missing) > 0 {
		err = conn.SetAddElements(s.Set, missing)
	}
	return len(leaving)+len(missing) > 0, err
}

// parts are what comes and goes as one: elements, or an interval's begin and
// end.
func (s *setElements) parts(elements []nftables.SetElement) (parts [][]nftables.SetElement) {
	if !s.Interval || s.Concatenation {
		for i := range elements {
			parts = append(parts, elements[i:i+1])
		}
		return parts
	}
	sorted := slices.SortedFunc(slices.Values(elements), func(a, b nftables.SetElement) int {
		if c := bytes.Compare(a.Key, b.Key); c != 0 || a.IntervalEnd == b.IntervalEnd {
			return c
		}
		if a.IntervalEnd { // the one before ends where the next begins
			return -1
		}
		return 1
	})
	for i := range sorted {
		if sorted[i].IntervalEnd {
			continue // of the one before, or of the kernel's own, below the first
		}
		end := i + 1
		if end < len(sorted) && sorted[end].IntervalEnd {
			end++
		}
		parts = append(parts, sorted[i:end])
	}
	return parts
}

func partKey(part []nftables.SetElement) string {
	var b bytes.Buffer
	for _, e := range part {
		fmt.Fprintf(&b, "%x-%x/%v ", e.Key, e.KeyEnd, e.IntervalEnd)
	}
	return b.String()
}
