package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"platelayer/topology"
)

// field is one key of the file as compare sees it.
type field[T any] struct {
	name string // the file's
	kind fieldKind
	// replaces: a process made with another value must be replaced.
	replaces bool
	parts    func(*T) []part
}

// part is an element of a list, or with key "" a value as a whole.
type part struct{ key, value string }

type fieldKind int

const (
	whole    fieldKind = iota // told as old -> new
	elements                  // each element told by itself
	secrets                   // elements whose values are never told
	settings                  // elements of one thing, which is there or not
)

// stationFields are all of a station's but its name and its cluster, which say
// which station it is.
func stationFields() []field[topology.Station] {
	type station = topology.Station
	return append([]field[station]{
		{"rootfs", whole, true, func(s *station) []part {
			switch {
			case s.Rootfs == "" && s.Image != "":
				return single("an image")
			case s.Rootfs == "":
				return single("built-in")
			}
			return single(word(s.Rootfs))
		}},
		{"image", whole, false, func(s *station) []part { return named(s.Image) }},
		{"image's digest", whole, true, func(s *station) []part { return named(s.Digest) }},
		{"pull_policy", whole, false, func(s *station) []part { return named(s.PullPolicy) }},
		{"platform", whole, false, func(s *station) []part { return named(s.Platform) }},
		{"writable", whole, true, func(s *station) []part { return single(word(s.Writable)) }},
		{"address", whole, false, func(s *station) []part { return listed(s.Addresses) }},
		{"loopback", whole, false, func(s *station) []part { return listed(s.Loopback) }},
		{"interface_name", whole, false, func(s *station) []part { return single(word(cmp.Or(s.InterfaceName, "eth0"))) }},
		{"mac_address", whole, false, func(s *station) []part { return single(cmp.Or(s.MAC, "automatic")) }},
		{"vlan", whole, false, func(s *station) []part { return single(vlansText(s.VLANs)) }},
		{"egress", whole, false, func(s *station) []part { return single(cmp.Or(s.Egress, "its cluster's")) }},
		{"interfaces", elements, false, func(s *station) []part { return partsOf(s.Interfaces, interfacePart) }},
		{"routes", elements, false, func(s *station) []part { return partsOf(s.Routes, routePart) }},
		{"ports", elements, false, func(s *station) []part { return partsOf(s.Ports, portPart) }},
		{"exposed ports", elements, false, func(s *station) []part { return partsOf(s.Exposed, alone) }},
		{"aliases", elements, false, func(s *station) []part { return partsOf(s.Aliases, alone) }},
		{"tls", elements, true, tlsParts},
		{"dns", whole, false, func(s *station) []part { return listed(s.DNS) }},
		{"dns_search", whole, false, func(s *station) []part { return wordsPart(s.DNSSearch) }},
		{"dns_opt", whole, false, func(s *station) []part { return wordsPart(s.DNSOpt) }},
		{"extra_hosts", elements, false, func(s *station) []part {
			return partsOf(s.ExtraHosts, func(h topology.ExtraHost) part { return part{word(h.Name) + " " + h.Address.String(), ""} })
		}},
		{"entrypoint", whole, true, func(s *station) []part { return wordsPart(s.Entrypoint) }},
		{"command", whole, true, func(s *station) []part { return wordsPart(s.Command) }},
		{"environment", secrets, true, func(s *station) []part {
			return partsOf(s.Environment, func(v string) part {
				name, value, _ := strings.Cut(v, "=")
				return part{word(name), value}
			})
		}},
		{"working_dir", whole, true, func(s *station) []part { return single(word(s.WorkingDir)) }},
		{"user", whole, true, func(s *station) []part { return single(word(s.User)) }},
		{"hostname", whole, true, func(s *station) []part { return single(word(s.Hostname)) }},
		{"volumes", elements, true, func(s *station) []part {
			return partsOf(s.Volumes, func(v topology.Volume) part {
				from := volumeText(v)
				return part{word(v.Target), from}
			})
		}},
		{"startup", whole, true, func(s *station) []part { return wordsPart(s.Startup) }},
		{"depends_on", elements, false, func(s *station) []part {
			return partsOf(s.DependsOn, func(d topology.Dependency) part {
				value := word(d.Condition)
				if d.Restart {
					value += " restart"
				}
				if d.Optional {
					value += " optional"
				}
				return part{word(d.Station), value}
			})
		}},
		{"healthcheck", settings, false, healthcheckParts},
		{"restart", whole, false, func(s *station) []part {
			policy := s.Restart.Policy
			if policy == "" {
				policy = topology.RestartNo
			}
			if s.Restart.MaxRetries != 0 {
				policy += ":" + strconv.Itoa(s.Restart.MaxRetries)
			}
			return single(word(policy))
		}},
		{"stop_signal", whole, false, func(s *station) []part { return single(word(s.StopSignal)) }},
		{"stop_grace_period", whole, false, func(s *station) []part { return single(s.StopGracePeriod.String()) }},
		{"mem_limit", whole, false, func(s *station) []part { return single(bytesText(s.MemLimit)) }},
		{"pids_limit", whole, false, func(s *station) []part { return single(countText(s.PidsLimit)) }},
		{"seal", elements, true, func(s *station) []part { return partsOf(s.Integrity.Paths, alone) }},
		{"manifest", whole, true, func(s *station) []part { return single(word(s.Integrity.Manifest)) }},
		{"logging", elements, false, func(s *station) []part {
			return nonEmpty(part{"max-size", bytesText(s.Logging.MaxSize)}, part{"max-file", countText(int64(s.Logging.MaxFiles))})
		}},
		{"profiles", elements, false, func(s *station) []part { return partsOf(s.Profiles, alone) }},
		{"labels", elements, false, func(s *station) []part {
			var all []part
			for key, value := range s.Labels {
				all = append(all, part{word(key), strconv.Quote(value)})
			}
			slices.SortFunc(all, func(a, b part) int { return strings.Compare(a.key, b.key) })
			return all
		}},
		{"group", whole, false, func(s *station) []part { return single(word(s.Group)) }},
	}, limitFields()...)
}

func healthcheckParts(s *topology.Station) []part {
	h := s.Healthcheck
	if h == nil {
		return nil
	}
	action := "report"
	if h.RestartUnhealthy {
		action = "restart"
	}
	return []part{
		{"test", commandText(h.Test)},
		{"interval", h.Interval.String()},
		{"timeout", h.Timeout.String()},
		{"retries", strconv.Itoa(h.Retries)},
		{"start_period", h.StartPeriod.String()},
		{"start_interval", h.StartInterval.String()},
		{"on_unhealthy", action},
	}
}

// differences tells how old and new differ, and whether a process must be
// replaced for it.
func differences[T any](fields []field[T], old, new *T) (reasons []string, replaced bool) {
	for _, f := range fields {
		before, after := f.parts(old), f.parts(new)
		if slices.Equal(before, after) {
			continue
		}
		replaced = replaced || f.replaces
		for _, r := range f.kind.tell(before, after) {
			reasons = append(reasons, f.name+": "+r)
		}
	}
	return reasons, replaced
}

// tell says how two different values differ.
func (k fieldKind) tell(before, after []part) []string {
	switch {
	case k == whole:
		return []string{wholeText(before) + " -> " + wholeText(after)}
	case k == settings && len(before) == 0:
		return []string{"added"}
	case k == settings && len(after) == 0:
		return []string{"removed"}
	}
	gone, come := without(before, after), without(after, before)
	var told []string
	say := func(p part, what string) {
		if k != secrets {
			what = strings.TrimSpace(p.value + " " + what)
		}
		told = append(told, p.key+" "+what)
	}
	for _, p := range gone {
		i := slices.IndexFunc(come, func(q part) bool { return q.key == p.key })
		switch {
		case i < 0:
			say(p, "removed")
			continue
		case k == secrets:
			say(p, "changed")
		default:
			told = append(told, p.key+" "+cmp.Or(p.value, "default")+" -> "+cmp.Or(come[i].value, "default"))
		}
		come = slices.Delete(come, i, i+1)
	}
	for _, p := range come {
		say(p, "added")
	}
	if len(told) == 0 {
		return []string{"in another order"}
	}
	return told
}

// without is what all has more of than those.
func without(all, those []part) []part {
	count := map[part]int{}
	for _, p := range those {
		count[p]++
	}
	var rest []part
	for _, p := range all {
		if count[p]--; count[p] < 0 {
			rest = append(rest, p)
		}
	}
	return rest
}

func wholeText(parts []part) string {
	if len(parts) == 0 {
		return "none"
	}
	return parts[0].value
}

// single is a value as a whole; "" is none.
func single(s string) []part { return nonEmpty(part{"", s}) }

// named is a value that stations may lack.
func named(text string) []part {
	if text == "" {
		return nil
	}
	return single(word(text))
}

func nonEmpty(all ...part) []part {
	return slices.DeleteFunc(all, func(p part) bool { return p.value == "" })
}

func partsOf[E any](all []E, as func(E) part) []part {
	var parts []part
	for _, e := range all {
		parts = append(parts, as(e))
	}
	return parts
}

func alone(s string) part { return part{key: word(s)} }

func listed[E fmt.Stringer](all []E) []part { return single(joined(all)) }

func joined[E fmt.Stringer](all []E) string {
	texts := make([]string, len(all))
	for i, e := range all {
		texts[i] = e.String()
	}
	return strings.Join(texts, ", ")
}

func wordsPart(all []string) []part {
	if len(all) == 0 {
		return nil // written into the state, an empty list comes back as none
	}
	return single(commandText(all))
}

func commandText(all []string) string {
	quoted := make([]string, len(all))
	for i, w := range all {
		quoted[i] = word(w)
		if w == "" {
			quoted[i] = `""`
		}
	}
	return "[" + strings.Join(quoted, " ") + "]"
}

// word is s, quoted where it is not plain, so that different values never look
// the same and nothing of the file's reaches a terminal as it is.
func word(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:@%+,=", r)
	}
	if strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}

// bytesText is a size as the file has it; 0 is none.
func bytesText(n int64) string {
	units := []string{"", "k", "m", "g"}
	i := 0
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n, i = n/1024, i+1
	}
	return countText(n) + units[i]
}

// countText is n; 0 is none.
func countText(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}
