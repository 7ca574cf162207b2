package authority

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"platelayer/topology"
)

func load(t *testing.T, text string) *topology.Topology {
	t.Helper()
	top, err := topology.Load("f.yaml", []byte(text), topology.Options{Dir: "/srv/shop"})
	if err != nil {
		t.Fatal(err)
	}
	return top
}

const shop = `
clusters:
  web:
    domain: shop.example
    subnets: [203.0.113.0/24, "fd20::/64"]
    stations:
      www: {addresses: [203.0.113.10, "fd20::10"], aliases: [store, www.other.example], loopback: [10.255.0.1], tls: {names: ["*.wild.example", 198.51.100.7]}}
      db: {address: 203.0.113.11}
links: [{subnet: 10.99.0.0/31, endpoints: [www, db]}]
`

func names(t *topology.Topology, station string) []string {
	for _, s := range t.Stations() {
		if s.Name == station && s.TLS != nil {
			return s.TLS.Names
		}
	}
	return nil
}

func TestScopeOf(t *testing.T) {
	top := load(t, shop)
	want := []string{"www.shop.example", "www", "store.shop.example", "store", "www.other.example", "localhost", "203.0.113.10", "fd20::10",
		"10.255.0.1", "10.99.0.0", "127.0.0.1", "::1", "*.wild.example", "198.51.100.7"}
	if got := names(top, "www"); !slices.Equal(got, want) {
		t.Errorf("names: %q", got)
	}
	s := ScopeOf(top)
	if want := []string{"shop.example", "wild.example"}; !slices.Equal(s.Domains, want) {
		t.Errorf("domains: %q", s.Domains)
	}
	if want := []string{"www", "store", "www.other.example", "localhost"}; !slices.Equal(s.Hosts, want) {
		t.Errorf("hosts: %q", s.Hosts)
	}
	subnets := []string{"203.0.113.0/24", "fd20::/64", "10.255.0.1/32", "10.99.0.0/32", "127.0.0.1/32", "::1/128", "198.51.100.7/32"}
	for i, n := range s.Subnets {
		if len(s.Subnets) != len(subnets) || n != netip.MustParsePrefix(subnets[i]) {
			t.Fatalf("subnets: %s", s.Subnets)
		}
	}
}

// TestIssue verifies certificates as clients do, with both of the authority's.
func TestIssue(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	top := load(t, shop)
	a, err := New(strings.Repeat("long", 15), ScopeOf(top), now)
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = Parse(text); err != nil {
		t.Fatal(err)
	}
	if again, _ := a.Encode(); !bytes.Equal(again, text) {
		t.Error("what is written and read again differs")
	}
	first := a.Certificate()
	key, cert, err := a.Issue(names(top, "www"), 30, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		t.Error(err)
	}
	leaf := parse(t, cert)
	verify := func(root []byte, leaf *x509.Certificate, name string, at time.Time) error {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(root)
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: at})
		return err
	}
	for _, root := range [][]byte{a.Trusted(), first} {
		for _, name := range []string{"www.shop.example", "store", "www.other.example", "x.wild.example", "localhost", "[fd20::10]", "[203.0.113.10]", "[10.99.0.0]"} {
			if err := verify(root, leaf, name, now); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, name := range []string{"shop.example", "db.shop.example", "wild.example", "[203.0.113.11]"} {
			if verify(root, leaf, name, now) == nil {
				t.Errorf("%s: is taken", name)
			}
		}
		for _, day := range []int{-1, 31} {
			if verify(root, leaf, "www.shop.example", now.AddDate(0, 0, day)) == nil {
				t.Errorf("is taken on day %d", day)
			}
		}
	}
	// The name of a station is not a domain for the machine, though it may be one
	// of the world's, and what it vouches for are connections.
	for name, inside := range map[string]bool{"bank.store": false, "www.www.other.example": false, "deep.db.shop.example": true, "a.wild.example": true, "store": true} {
		_, cert, err := a.Issue([]string{name}, 30, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(a.Trusted(), parse(t, cert), name, now); err != nil {
			t.Error(err)
		}
		if err := verify(first, parse(t, cert), name, now); (err == nil) != inside {
			t.Errorf("the machine about %s: %v", name, err)
		}
	}
	if usage := parse(t, first).ExtKeyUsage; !slices.Equal(usage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) {
		t.Errorf("it is for %v", usage)
	}
	// A name beside the scope: stations take it, the machine's copy once it is
	// wider, and older copies still take what they were for.
	far := Scope{Domains: []string{"far.example"}, Subnets: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}
	if a.Covers(far) {
		t.Error("covers another domain")
	}
	_, cert, err = a.Issue([]string{"x.far.example", "198.51.100.9"}, 30, now)
	if err != nil {
		t.Fatal(err)
	}
	other := parse(t, cert)
	if err := verify(a.Trusted(), other, "x.far.example", now); err != nil {
		t.Error(err)
	}
	if verify(first, other, "x.far.example", now) == nil {
		t.Error("the machine's copy takes another domain")
	}
	if err := a.Widen(far, now); err != nil {
		t.Fatal(err)
	}
	if a.Covers(Scope{Domains: []string{"store"}}) || a.Covers(Scope{Hosts: []string{"x.store"}}) || !a.Covers(Scope{Hosts: []string{"y.far.example"}}) {
		t.Error("hosts are not told from domains")
	}
	// A domain below a host's name, and the host as a domain.
	for _, s := range []Scope{{Domains: []string{"a.store"}}, {Domains: []string{"www"}}} {
		b, err := Parse(text)
		if err == nil {
			err = b.Widen(s, now)
		}
		if err != nil || !b.Covers(s) || !b.Covers(ScopeOf(top)) {
			t.Errorf("%v: %v", s, err)
		}
		_, cert, err := b.Issue([]string{"x." + s.Domains[0], "store", "www"}, 30, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(b.Certificate(), parse(t, cert), "x."+s.Domains[0], now); err != nil {
			t.Error(err)
		}
	}
	if !a.Covers(far) || !a.Covers(ScopeOf(top)) || bytes.Equal(first, a.Certificate()) {
		t.Error("it is not wider")
	}
	for _, err := range []error{verify(a.Certificate(), other, "x.far.example", now), verify(a.Certificate(), leaf, "store", now), verify(first, leaf, "store", now)} {
		if err != nil {
			t.Error(err)
		}
	}
	if a.Spent(now.AddDate(6, 0, 0)) || !a.Spent(now.AddDate(8, 0, 0)) {
		t.Error("spent at the wrong time")
	}
	if _, cert, err = a.Issue([]string{"x"}, 3650, now.AddDate(5, 0, 0)); err != nil || parse(t, cert).NotAfter.After(a.Until()) {
		t.Error("a certificate outlives its authority", err)
	}
}

func parse(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParse(t *testing.T) {
	now := time.Unix(1, 0)
	a, err := New("a", Scope{Domains: []string{"a.example"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New("b", Scope{Domains: []string{"a.example"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := a.Encode()
	key, _, _ := bytes.Cut(text, []byte("-----BEGIN CERT"))
	for name, bad := range map[string][]byte{
		"nothing": nil, "half": text[:len(text)/2], "another's": slices.Concat(key, b.Trusted(), b.Certificate()),
		"no key": slices.Concat(a.Trusted(), a.Trusted(), a.Certificate()),
	} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%s: is taken", name)
		}
	}
}
