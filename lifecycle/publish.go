package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"syscall"

	"platelayer/backbone"
	"platelayer/containers/native"
	"platelayer/topology"
)

// PublishedPort is a port of the machine that leads to a station.
type PublishedPort struct {
	Station  string     `json:"station"` // "cluster/station"
	Target   uint16     `json:"target"`
	Protocol string     `json:"protocol"`
	HostIP   netip.Addr `json:"host_ip,omitzero"` // invalid is all addresses
	Port     uint16     `json:"port"`
}

// socket is its name on the backbone's shelf: it may come to lead elsewhere.
func (p PublishedPort) socket() string {
	return "port/" + p.Protocol + "/" + p.listen()
}

// listen is where it listens.
func (p PublishedPort) listen() string {
	host := ""
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(p.Port)))
}

// fits tells whether it is what the file asks for. One without a number may have
// any, and so may one that another copy holds.
func (p PublishedPort) fits(s *topology.Station, want topology.Port, ephemeral bool) bool {
	if p.Station != s.ID() || p.Target != want.Target || p.Protocol != want.Protocol || p.HostIP != want.HostIP {
		return false
	}
	return ephemeral || want.Published == 0 || p.Port >= want.Published && p.Port <= max(want.Published, want.Last)
}

// PortTaken is a port that somebody else listens on.
type PortTaken struct {
	Place   string // FILE:LINE:COLUMN, or ""
	Station string
	Port    string // "8080/tcp"
	Owner   string // program and pid, or ""
	Err     error
}

func (e *PortTaken) Error() string {
	text := fmt.Sprintf("cannot listen on the machine's port %s: %v", e.Port, e.Err)
	if e.Owner != "" {
		text += ", by " + e.Owner
	}
	return text
}

func (e *PortTaken) Unwrap() error { return e.Err }

// published is what a topology has of the machine's ports: what is open, with
// its sockets.
type published struct {
	ports []PublishedPort
	files map[string]*os.File // by socket
	fresh []string            // sockets that were opened for it
}

// publish opens the ports that a topology asks for and have has not, in the
// machine's namespace. After an error nothing is open that was not before. Nil
// files stand for all of have's, held by somebody else.
func (o outside) publish(t *topology.Topology, file string, have []PublishedPort, files map[string]*os.File, tell func(string)) (*published, []*PortTaken) {
	p := &published{files: map[string]*os.File{}}
	var errs []*PortTaken
	for _, s := range t.Stations() {
		for _, want := range s.Ports {
			port, err := o.publishOne(s, want, p, have, files, func(want topology.Port) string { return o.copyHas(t.Name, file, want) }, tell)
			if err != nil {
				err.Place = t.Place(s.ID(), "ports", placeOf(want))
				errs = append(errs, err)
				continue
			}
			p.ports = append(p.ports, port)
		}
	}
	if len(errs) > 0 {
		p.withdraw()
		return nil, errs
	}
	return p, nil
}

// withdraw closes what was opened for it.
func (p *published) withdraw() {
	if p == nil {
		return
	}
	for _, name := range p.fresh {
		if f := p.files[name]; f != nil {
			f.Close()
		}
		delete(p.files, name)
	}
}

// placeOf is what of a port the file surely has.
func placeOf(p topology.Port) string {
	if p.Last != 0 {
		return fmt.Sprintf("%d-%d", p.Published, p.Last)
	}
	return strconv.Itoa(int(p.Published))
}

func (o outside) publishOne(s *topology.Station, want topology.Port, p *published, have []PublishedPort, files map[string]*os.File,
	copyHas func(topology.Port) string, tell func(string)) (PublishedPort, *PortTaken) {
	port := PublishedPort{Station: s.ID(), Target: want.Target, Protocol: want.Protocol, HostIP: want.HostIP}
	fixed := want.Published != 0 && want.Last == 0
	keep := func(at PublishedPort) bool {
		name := at.socket()
		f, held := files[name], slices.ContainsFunc(have, func(h PublishedPort) bool { return h.socket() == name })
		if _, used := p.files[name]; used || !held || f == nil && files != nil {
			return false
		}
		p.files[name] = f
		return true
	}
	for _, exact := range []bool{true, false} { // then what was given instead
		for _, h := range have {
			if h.fits(s, want, !exact && fixed && copyHas(want) != "") && keep(h) {
				return h, nil
			}
		}
	}
	if port.Port = want.Published; fixed && keep(port) { // it led elsewhere
		return port, nil
	}
	var err error
	for n := int(want.Published); n <= int(max(want.Published, want.Last)); n++ {
		port.Port = uint16(n)
		var f *os.File
		if f, err = listenOn(&port); err == nil {
			p.add(port, f)
			return port, nil
		}
		if errors.Is(err, syscall.EADDRINUSE) && fixed {
			if f, err = listenBeside(&port, have, files, err); err == nil {
				p.add(port, f)
				return port, nil
			}
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if errors.Is(err, syscall.EADDRINUSE) && fixed {
		if other := copyHas(want); other != "" {
			port.Port = 0
			f, freeErr := listenOn(&port)
			if freeErr == nil {
				tell(fmt.Sprintf("the machine's port %d/%s is that of %q, from the same file: station %s has %d instead", want.Published, want.Protocol, other, s.ID(), port.Port))
				p.add(port, f)
				return port, nil
			}
		}
	}
	taken := &PortTaken{Station: s.ID(), Port: placeOf(want) + "/" + want.Protocol, Err: plainSocketError(err)}
	if errors.Is(err, syscall.EADDRINUSE) && fixed {
		taken.Owner = o.portOwner(want.Protocol, want.Published)
	}
	return port, taken
}

func (p *published) add(port PublishedPort, f *os.File) {
	p.files[port.socket()] = f
	p.fresh = append(p.fresh, port.socket())
}

// copyHas names another topology of the same file that has the port.
func (o outside) copyHas(name, file string, want topology.Port) string {
	all, err := names(o.layout)
	if err != nil {
		return ""
	}
	for _, other := range all {
		i, err := readIntent(o.layout, other)
		if err != nil || other == name || i.File != file {
			continue
		}
		state, err := readState(o.layout, other)
		if err != nil || !anyAlive(state) {
			continue
		}
		if slices.ContainsFunc(state.Ports, func(p PublishedPort) bool {
			return p.Port == want.Published && p.Protocol == want.Protocol && topology.Overlap(p.HostIP, want.HostIP)
		}) {
			return other
		}
	}
	return ""
}

// openPorts opens the ports of the keeper's topology before anything starts.
func (k *keeper) openPorts() error {
	k.mu.Lock()
	i, have, files := k.intent, k.state.Ports, k.files
	k.mu.Unlock()
	if files == nil {
		files = map[string]*os.File{}
	}
	p, taken := outside{k.layout}.publish(i.Topology, i.File, have, files, func(n string) { k.tell(Progress{Notice: n}) })
	if len(taken) > 0 {
		var errs []error
		for _, e := range taken {
			errs = append(errs, fmt.Errorf("station %q: %w", e.Station, e))
		}
		return errors.Join(errs...)
	}
	k.mu.Lock()
	k.pending = p
	k.mu.Unlock()
	return nil
}

// switchPorts makes the ports that openPorts opened the topology's, and has
// the backbone hold them; those that are no longer wanted are closed once the
// backbone has its next configuration.
func (k *keeper) switchPorts() (closeOld func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, old, talk := k.pending, k.files, k.backbone.talk
	k.pending = nil
	if p == nil {
		return func() {}
	}
	k.state.Ports, k.files = p.ports, p.files
	if talk != nil {
		for _, name := range p.fresh {
			_ = talk.Hold(name, p.files[name]) // one that has ended: givePorts
		}
	}
	return func() {
		for name, f := range old {
			if p.files[name] != nil {
				continue
			}
			f.Close()
			if talk != nil {
				_ = talk.Drop(name)
			}
		}
	}
}

// withdrawPorts closes what openPorts opened.
func (k *keeper) withdrawPorts() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending.withdraw()
	k.pending = nil
}

// givePorts has a new backbone hold the ports.
func (k *keeper) givePorts(talk *backbone.Keeper) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, f := range k.files {
		if talk.Hold(name, f) != nil {
			return // it has ended again: the next one gets them
		}
	}
}

// takePorts goes on with the ports that an earlier keeper opened: the backbone
// holds them. What it has not is opened again.
func (k *keeper) takePorts(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, backbonePatience)
	defer cancel()
	k.mu.Lock()
	ports, talk := k.state.Ports, k.backbone.talk
	k.mu.Unlock()
	files, again := map[string]*os.File{}, false
	for _, p := range ports {
		var f *os.File
		err := errors.New("there is no backbone")
		if talk != nil {
			f, err = talk.Take(ctx, p.socket())
		}
		if err != nil {
			at := p
			if f, err = listenOn(&at); err == nil && talk != nil {
				again = true
				err = talk.Hold(p.socket(), f)
			}
		}
		if err != nil {
			k.tell(Progress{Notice: fmt.Sprintf("station %s has lost the machine's port %d/%s: %v", p.Station, p.Port, p.Protocol, plainSocketError(err))})
			continue
		}
		files[p.socket()] = f
	}
	k.mu.Lock()
	k.files = files
	k.mu.Unlock()
	if again {
		_ = k.configureBackbone(ctx)
	}
}

// portConfig is what the backbone does with the ports. The keeper's mutex is held.
func (k *keeper) portConfig() []backbone.Port {
	byID := map[string]*topology.Station{}
	for _, s := range k.intent.Topology.Stations() {
		byID[s.ID()] = s
	}
	var all []backbone.Port
	for _, p := range k.state.Ports {
		s := byID[p.Station]
		if s == nil {
			continue
		}
		addresses := reached(k.intent.Topology, s)
		port := backbone.Port{Name: p.socket(), Network: p.Protocol}
		for _, four := range []bool{true, false} {
			if i := slices.IndexFunc(addresses, func(a netip.Addr) bool { return a.Is4() == four }); i >= 0 {
				port.To = append(port.To, netip.AddrPortFrom(addresses[i], p.Target))
			}
		}
		all = append(all, port)
	}
	return all
}

// reached lists the addresses of a station that the backbone has a way to.
func reached(t *topology.Topology, s *topology.Station) []netip.Addr {
	has := map[string]bool{}
	for i := range t.Clusters {
		c := &t.Clusters[i]
		has[c.Name] = c.Connected()
	}
	var addresses []netip.Addr
	if has[s.Cluster] {
		addresses = append(addresses, s.Addresses...)
	}
	for _, f := range s.Interfaces {
		if has[f.Cluster] {
			addresses = append(addresses, f.Addresses...)
		}
	}
	return addresses
}

// Ports lists the published ports of a topology, in the order of its file.
func Ports(l Layout, name string) ([]PublishedPort, error) {
	state, err := readState(l, name)
	if err != nil {
		return nil, err
	}
	if !native.Alive(state.Backbone.Process) {
		return []PublishedPort{}, nil
	}
	return append([]PublishedPort{}, state.Ports...), nil
}

// checkPorts finds ports of the machine that others have, and those that could
// lead nowhere, before anything is made.
func checkPorts(l Layout, t *topology.Topology, file string) error {
	var have []PublishedPort
	if state, err := readState(l, t.Name); err == nil && anyAlive(state) {
		have = state.Ports
	}
	p, taken := outside{l}.publish(t, file, have, nil, func(string) {})
	p.withdraw()
	found := new(Wanting)
	for _, e := range taken {
		found.Problems = append(found.Problems, WantingProblem{e.Place, e.Station, e})
	}
	for _, s := range t.Stations() {
		if len(s.Ports) > 0 && len(reached(t, s)) == 0 {
			err := errors.New("cannot publish ports: the backbone has no way to any address of the station")
			found.Problems = append(found.Problems, WantingProblem{t.Place(s.ID(), "ports", ""), s.ID(), err})
		}
	}
	if len(found.Problems) == 0 {
		return nil
	}
	return found
}
