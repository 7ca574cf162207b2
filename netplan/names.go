package netplan

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
)

// maxName is the kernel's IFNAMSIZ less the closing zero.
const maxName = 15

// allocator hands out interface names and MACs that depend on what they are
// for alone, so that adding a station moves no other's. Two that hash alike
// are told apart by a salt.
type allocator struct {
	taken map[string]bool
}

func newAllocator() *allocator { return &allocator{taken: map[string]bool{}} }

// fit is prefix+name, shortened with a hash where that is too long.
func (a *allocator) fit(prefix, name string) string {
	if full := prefix + name; len(full) <= maxName && a.take(full) {
		return full
	}
	const hashed = 6
	readable := trim(prefix+name, maxName-1-hashed)
	return a.salted(prefix+name, func(sum string) string { return readable + "-" + sum[:hashed] })
}

// port is the name of a station's port in the fabric: short and hashed always,
// for the fabric holds the ports of all clusters.
func (a *allocator) port(station, path string) string {
	const hashed = 8
	readable := trim(station, maxName-1-hashed)
	return a.salted("port/"+path, func(sum string) string { return readable + "-" + sum[:hashed] })
}

// mac is a locally administered unicast address.
func (a *allocator) mac(path string) string {
	return a.salted("mac/"+path, func(sum string) string {
		raw := sha256.Sum256([]byte(sum))
		return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", raw[0]&^0x03|0x02, raw[1], raw[2], raw[3], raw[4], raw[5])
	})
}

// salted tries hashes of seed until shape makes of one what nobody has.
func (a *allocator) salted(seed string, shape func(sum string) string) string {
	for salt := 0; ; salt++ {
		raw := sha256.Sum256(fmt.Appendf(nil, "%s#%d", seed, salt))
		sum := strings.ToLower(base32.StdEncoding.EncodeToString(raw[:]))
		if s := shape(sum); a.take(s) {
			return s
		}
	}
}

func (a *allocator) take(s string) bool {
	if a.taken[s] {
		return false
	}
	a.taken[s] = true
	return true
}

func trim(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.TrimRight(s, "-_")
}
