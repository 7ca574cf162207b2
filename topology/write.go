package topology

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// YAML prints the topology as a file with everything written out that Load
// filled in. Loading it gives an equal Topology.
func (t *Topology) YAML() ([]byte, error) {
	w := writer{of: t}
	w.line(0, "name", scalarText(t.Name))
	w.open(0, "backbone")
	if t.Backbone.Egress != "" {
		w.egress(1, t.Backbone.Egress)
	}
	w.upstream(&t.Backbone)
	w.routes(1, t.Backbone.Routes)
	if t.Backbone.HostRoutes != "" {
		w.line(1, "host_routes", t.Backbone.HostRoutes)
	}
	w.flag(1, "host_access", t.Backbone.HostAccess)
	w.shared(t)
	w.open(0, "clusters")
	for i := range t.Clusters {
		w.cluster(&t.Clusters[i])
	}
	w.links(t.Links)
	return []byte(w.b.String()), nil
}

// writer prints YAML. It is written by hand because the library's block
// scalars do not give every text back.
type writer struct {
	of    *Topology
	b     strings.Builder
	files int // configs and secrets so far: they have numbers for names
}

func (w *writer) indent(depth int) { w.b.WriteString(strings.Repeat("  ", depth)) }

func (w *writer) line(depth int, key, value string) {
	w.indent(depth)
	fmt.Fprintf(&w.b, "%s: %s\n", key, value)
}

func (w *writer) open(depth int, key string) {
	w.indent(depth)
	fmt.Fprintf(&w.b, "%s:\n", key)
}

// text prints a key that is left out when it is empty.
func (w *writer) text(depth int, key, value string) {
	if value != "" {
		w.line(depth, key, scalarText(value))
	}
}

// list prints a list in one line while that is readable.
func (w *writer) list(depth int, key string, values []string) {
	const width = 90
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = scalarText(v)
	}
	if flow := "[" + strings.Join(parts, ", ") + "]"; len(flow) <= width {
		w.line(depth, key, flow)
		return
	}
	w.open(depth, key)
	for _, p := range parts {
		w.indent(depth + 1)
		w.b.WriteString("- " + p + "\n")
	}
}

func (w *writer) cluster(c *Cluster) {
	w.open(1, scalarText(c.Name))
	w.line(2, "domain", scalarText(c.Domain))
	w.network(c)
	w.records(c.Records)
	w.line(2, "mtu", fmt.Sprint(c.MTU))
	w.text(2, "switch", c.Switch)
	w.someOf(2, "attach", c.Attach)
	if len(c.Stations) == 0 {
		return
	}
	w.open(2, "stations")
	for i := range c.Stations {
		w.station(&c.Stations[i])
	}
}

func (w *writer) station(s *Station) {
	const depth = 4
	w.open(3, scalarText(s.Name))
	w.text(depth, "rootfs", s.Rootfs)
	w.text(depth, "image", s.Image)
	w.text(depth, "pull_policy", s.PullPolicy)
	w.text(depth, "platform", s.Platform)
	w.line(depth, "writable", s.Writable)
	w.interfaces(depth, s)
	w.routes(depth, s.Routes)
	w.someOf(depth, "aliases", s.Aliases)
	w.tls(depth, s)
	w.resolving(depth, s)
	if s.Entrypoint != nil {
		w.list(depth, "entrypoint", s.Entrypoint)
	}
	if s.Command != nil {
		w.list(depth, "command", s.Command)
	}
	w.someOf(depth, "environment", s.Environment)
	w.text(depth, "working_dir", s.WorkingDir)
	w.text(depth, "user", s.User)
	w.line(depth, "hostname", scalarText(s.Hostname))
	w.process(depth, s)
	w.ports(depth, s.Ports)
	w.volumes(depth, s.Volumes)
	w.mounts(depth, s)
	w.security(depth, s)
	w.dependencies(depth, s.DependsOn)
	w.joined(depth, s)
	w.someOf(depth, "startup", s.Startup)
	if s.Healthcheck != nil {
		w.healthcheck(depth, s.Healthcheck)
	}
	if s.Restart != (Restart{}) {
		w.line(depth, "restart", scalarText(s.Restart.String()))
	}
	w.text(depth, "stop_signal", s.StopSignal)
	w.line(depth, "stop_grace_period", duration(s.StopGracePeriod))
	if s.MemLimit != 0 {
		w.line(depth, "mem_limit", fmt.Sprint(s.MemLimit))
	}
	if s.PidsLimit != 0 {
		w.line(depth, "pids_limit", fmt.Sprint(s.PidsLimit))
	}
	w.resources(depth, s)
	if len(s.Integrity.Paths) > 0 {
		w.open(depth, "integrity")
		w.list(depth+1, "paths", s.Integrity.Paths)
		w.line(depth+1, "manifest", scalarText(s.Integrity.Manifest))
	}
	w.text(depth, "group", s.Group)
	w.someOf(depth, "profiles", s.Profiles)
	w.someOf(depth, "labels", pairsOf(s.Labels))
	w.logging(depth, s.Logging)
}

// dependencies prints the short form while that says everything.
func (w *writer) dependencies(depth int, all []Dependency) {
	var ids []string
	long := false
	for _, d := range all {
		ids = append(ids, d.Station)
		long = long || d != Dependency{Station: d.Station, Condition: Started}
	}
	if !long {
		w.someOf(depth, "depends_on", ids)
		return
	}
	w.open(depth, "depends_on")
	for _, d := range all {
		parts := []string{"condition: " + d.Condition}
		if d.Restart {
			parts = append(parts, "restart: true")
		}
		if d.Optional {
			parts = append(parts, "required: false")
		}
		w.line(depth+1, scalarText(d.Station), "{"+strings.Join(parts, ", ")+"}")
	}
}

func (w *writer) healthcheck(depth int, h *Healthcheck) {
	w.open(depth, "healthcheck")
	depth++
	switch {
	case len(h.Test) == 1 && h.Test[0] == NoHealthcheck:
		w.line(depth, "disable", "true")
		return
	case len(h.Test) > 0:
		w.list(depth, "test", append([]string{"CMD"}, h.Test...))
	}
	pause := func(key string, d time.Duration) {
		if d != 0 {
			w.line(depth, key, duration(d))
		}
	}
	pause("interval", h.Interval)
	pause("timeout", h.Timeout)
	if h.Retries != 0 {
		w.line(depth, "retries", fmt.Sprint(h.Retries))
	}
	pause("start_period", h.StartPeriod)
	pause("start_interval", h.StartInterval)
	if h.RestartUnhealthy {
		w.line(depth, "on_unhealthy", "restart")
	}
}

func (w *writer) logging(depth int, g Logging) {
	if g == (Logging{}) {
		return
	}
	w.open(depth, "logging")
	w.open(depth+1, "options")
	if g.MaxSize != 0 {
		w.line(depth+2, "max-size", fmt.Sprint(g.MaxSize))
	}
	if g.MaxFiles != 0 {
		w.line(depth+2, "max-file", fmt.Sprint(g.MaxFiles))
	}
}

// pairsOf lists NAME=value, sorted.
func pairsOf(values map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		out = append(out, name+"="+values[name])
	}
	return out
}

// someOf prints a list that is left out when it is empty.
func (w *writer) someOf(depth int, key string, values []string) {
	if len(values) > 0 {
		w.list(depth, key, values)
	}
}

func texts[T netip.Addr | netip.Prefix](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fmt.Sprint(v)
	}
	return out
}

// duration leaves out the zero parts that Go prints: 1m, not 1m0s.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return scalarText(s)
}

// plainText matches what needs no quotes: words, paths, IPv4 and times.
var plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./+=-]*$|^[0-9]+(\.[0-9]+){3}(/[0-9]+)?$|^([0-9]+(ms|s|m|h))+$`)

// scalarText prints a text so that YAML reads the same text, in quotes unless
// it is plainly a word, and with $ doubled because Load replaces variables.
func scalarText(s string) string {
	if plainText.MatchString(s) && !isYAMLWord(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '$':
			b.WriteString("$$")
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r >= 0x7f && r <= 0xa0:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case r >= 0x2000 && r <= 0x206f || r >= 0xd800:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// isYAMLWord tells whether some YAML reader takes s for something other than
// text.
func isYAMLWord(s string) bool {
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null", "inf", "nan":
		return true
	}
	return false
}
