package topology

import "strings"

// upstream prints who answers about other names.
func (w *writer) upstream(b *Backbone) {
	if len(b.Domains) == 0 {
		w.list(1, "upstream", b.Upstream)
		return
	}
	w.open(1, "upstream")
	item := func(text string) {
		w.indent(2)
		w.b.WriteString("- " + text + "\n")
	}
	for _, u := range b.Upstream {
		item(scalarText(u))
	}
	for _, d := range b.Domains {
		var servers []string
		for _, s := range d.Servers {
			servers = append(servers, scalarText(s))
		}
		item("{domain: " + scalarText(d.Domain) + ", servers: [" + strings.Join(servers, ", ") + "]}")
	}
}

func (w *writer) records(all []Record) {
	var lines []string
	for _, r := range all {
		lines = append(lines, r.String())
	}
	w.someOf(2, "records", lines)
}

// resolving prints a station's own view of names.
func (w *writer) resolving(depth int, s *Station) {
	w.someOf(depth, "dns", texts(s.DNS))
	w.someOf(depth, "dns_search", s.DNSSearch)
	w.someOf(depth, "dns_opt", s.DNSOpt)
	var hosts []string
	for _, h := range s.ExtraHosts {
		hosts = append(hosts, h.Name+"="+h.Address.String())
	}
	w.someOf(depth, "extra_hosts", hosts)
}
