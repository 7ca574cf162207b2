// Package authority makes the certificates of a topology's stations: what is in
// them, and who signs them. It reads no file and no clock.
package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	years = 10 // that an authority holds
	// early is how long before its end an authority is no longer used: longer
	// than the certificates that it signs hold by default.
	early = 3 * 365 * 24 * time.Hour
	// skew is how far the clock of whoever looks may be behind.
	skew = time.Hour
)

// Authority signs the certificates of one topology's stations. It has two
// certificates of one key: stations trust the first; the second, for the
// machine's browser, is bounded by name constraints (RFC 5280, 4.2.1.10) to the
// names and addresses of the topology. A new station needs a new name, and what
// runs must trust it without being touched: hence both.
type Authority struct {
	key   *ecdsa.PrivateKey
	own   *x509.Certificate
	bound *x509.Certificate
}

// New makes the authority of a topology.
func New(topology string, s Scope, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	a := &Authority{key: key}
	if a.own, err = a.certify(a.template(topology, now), nil); err != nil {
		return nil, err
	}
	return a, a.Widen(s, now)
}

// template is a certificate of the authority's own.
func (a *Authority) template(topology string, now time.Time) *x509.Certificate {
	public := a.key.PublicKey
	point, _ := public.Bytes() // of a curve that is there
	id := sha256.Sum256(point)
	const longest = 40 // of the name in a common name, which has at most 64 characters
	name := topology[:min(len(topology), longest)] + " " + hex.EncodeToString(id[:4])
	return &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Platelayer"}, CommonName: "Platelayer " + name},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.AddDate(years, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId:          id[:20],
	}
}

// certify signs a certificate for a key, nil is the authority's own.
func (a *Authority) certify(t *x509.Certificate, public *ecdsa.PublicKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("cannot make a serial number: %w", err)
	}
	t.SerialNumber = serial
	parent := a.own
	if public == nil {
		public, parent = &a.key.PublicKey, t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("cannot sign a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// Widen has the machine's certificate take the scope too. Who trusts an older
// one goes on to trust what that was for.
func (a *Authority) Widen(s Scope, now time.Time) error {
	if a.bound != nil {
		s = a.scope().and(s)
	}
	t := a.template("", now)
	t.RawSubject, t.NotAfter = a.own.RawSubject, a.own.NotAfter
	t.PermittedDNSDomainsCritical = true
	t.PermittedDNSDomains = slices.Concat(s.Domains, s.Hosts)
	t.ExcludedDNSDomains = s.excluded()
	t.ExtKeyUsage = tlsUsage()
	for _, n := range s.Subnets {
		t.PermittedIPRanges = append(t.PermittedIPRanges, &net.IPNet{IP: n.Addr().AsSlice(), Mask: net.CIDRMask(n.Bits(), n.Addr().BitLen())})
	}
	bound, err := a.certify(t, nil)
	if err != nil {
		return err
	}
	a.bound = bound
	return nil
}

// tlsUsage is what certificates are for: not mail, nor programs.
func tlsUsage() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

// scope is what the machine's certificate is bounded to.
func (a *Authority) scope() Scope {
	var s Scope
	for _, name := range a.bound.PermittedDNSDomains {
		if slices.Contains(a.bound.ExcludedDNSDomains, "."+name) {
			s.Hosts = append(s.Hosts, name)
		} else {
			s.Domains = append(s.Domains, name)
		}
	}
	for _, n := range a.bound.PermittedIPRanges {
		ip, _ := netip.AddrFromSlice(n.IP)
		bits, _ := n.Mask.Size()
		s.Subnets = append(s.Subnets, netip.PrefixFrom(ip, bits))
	}
	return s
}

// Covers tells whether the machine's certificate takes the scope.
func (a *Authority) Covers(s Scope) bool { return a.scope().has(s) }

// Spent tells whether the authority is too near its end to be used.
func (a *Authority) Spent(now time.Time) bool {
	return now.After(a.own.NotAfter.Add(-early)) || now.Before(a.own.NotBefore)
}

// Issue makes a key and a certificate for names and addresses, which holds some
// days, both as PEM.
func (a *Authority) Issue(names []string, days int, now time.Time) (key, cert []byte, err error) {
	if len(names) == 0 {
		return nil, nil, errors.New("cannot make a certificate for no name")
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a key: %w", err)
	}
	t := &x509.Certificate{
		NotBefore:             now.Add(-skew),
		NotAfter:              now.AddDate(0, 0, days),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           tlsUsage(),
	}
	if t.NotAfter.After(a.own.NotAfter) {
		t.NotAfter = a.own.NotAfter
	}
	const longest = 64 // characters of a common name (RFC 5280, appendix A)
	if len(names[0]) <= longest {
		t.Subject = pkix.Name{CommonName: names[0]}
	}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			t.IPAddresses = append(t.IPAddresses, ip.AsSlice())
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	made, err := a.certify(t, &private.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	if key, err = encodeKey(private); err != nil {
		return nil, nil, err
	}
	return key, encodeCertificate(made), nil
}

// Trusted is the certificate that stations trust, as PEM.
func (a *Authority) Trusted() []byte { return encodeCertificate(a.own) }

// Certificate is the machine's, as PEM.
func (a *Authority) Certificate() []byte { return encodeCertificate(a.bound) }

// Until is the end of the machine's certificate.
func (a *Authority) Until() time.Time { return a.bound.NotAfter }

// Fingerprint is that of the machine's certificate: SHA-256, as browsers show it.
func (a *Authority) Fingerprint() string {
	sum := sha256.Sum256(a.bound.Raw)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

// Encode is the whole authority, its key first, as PEM.
func (a *Authority) Encode() ([]byte, error) {
	key, err := encodeKey(a.key)
	return slices.Concat(key, a.Trusted(), a.Certificate()), err
}

// Parse reads what Encode made.
func Parse(text []byte) (*Authority, error) {
	a := new(Authority)
	var blocks [3]*pem.Block
	for i := range blocks {
		if blocks[i], text = pem.Decode(text); blocks[i] == nil {
			return nil, errors.New("an authority is a key and two certificates")
		}
	}
	key, err := x509.ParsePKCS8PrivateKey(blocks[0].Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	var ok bool
	if a.key, ok = key.(*ecdsa.PrivateKey); !ok {
		return nil, errors.New("the key is of another kind")
	}
	for i, c := range []**x509.Certificate{&a.own, &a.bound} {
		if *c, err = x509.ParseCertificate(blocks[i+1].Bytes); err != nil {
			return nil, fmt.Errorf("cannot read the certificate: %w", err)
		}
		if !a.key.PublicKey.Equal((*c).PublicKey) {
			return nil, errors.New("the certificate is of another key")
		}
	}
	return a, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func encodeCertificate(c *x509.Certificate) []byte {
	return bytes.Clone(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// Names are the domains, further names and subnets that the machine's certificate is for.
func (a *Authority) Names() []string {
	s := a.scope()
	names := slices.Concat(s.Domains, s.Hosts)
	for _, n := range s.Subnets {
		names = append(names, n.String())
	}
	return names
}
