// Package topology holds what the user means: it reads a topology file into a
// Topology, reports every problem with its position, and fills in what the
// file leaves out (subnets, addresses, domains). It is pure: no file but the
// ones handed to it, no system call, no clock.
package topology

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Topology is one file, read, checked and completed. Clusters and their
// stations keep the order of the file.
type Topology struct {
	Name     string    `json:"name"`
	Dir      string    `json:"dir"` // folder of the file; relative paths start here
	Backbone Backbone  `json:"backbone"`
	Clusters []Cluster `json:"clusters"`
	// Links are in the order of the file, which is that of a station's
	// interfaces: its further ones come first, then its ends of links.
	Links []Link `json:"links,omitempty"`
	// Volumes are those that stations name, in the order of the file.
	Volumes []NamedVolume `json:"volumes,omitempty"`

	source *source // nil where it is not from Load
}

// Backbone is the container that links the clusters.
type Backbone struct {
	// Egress is what stations may reach outside: EgressAllow (also ""),
	// EgressNone, or Destinations. Clusters and stations may have their own.
	Egress string `json:"egress,omitempty"`
	// Upstream lists the resolvers for names that are not the topology's own:
	// "host" for the machine's, or addresses. Empty: none.
	Upstream []string `json:"upstream"`
	// Domains have resolvers of their own.
	Domains []UpstreamDomain `json:"domains,omitempty"`
	Routes  []Route          `json:"routes,omitempty"`
	// HostRoutes says whether the machine gets routes to the stations: "true",
	// "false", or "" for those to ranges that are nobody's on the internet.
	HostRoutes string `json:"host_routes,omitempty"`
	// HostAccess lets stations open connections to the machine's end of the
	// uplink.
	HostAccess bool `json:"host_access,omitempty"`
}

// Cluster is a LAN: one virtual switch with one or more subnets.
type Cluster struct {
	Name    string         `json:"name"`
	Domain  string         `json:"domain"`  // without a trailing dot
	Subnets []netip.Prefix `json:"subnets"` // none: layer 2 alone
	// Gateway names the station that is the cluster's default gateway; "" is
	// the backbone.
	Gateway string `json:"gateway,omitempty"`
	// Metric is that of the default routes through Gateway, and Standby are
	// further gateways.
	Metric  uint32    `json:"metric,omitempty"`
	Standby []Gateway `json:"standby,omitempty"`
	// Transit holds the subnets of the link between Gateway and the backbone,
	// which has no other leg in the cluster: an inline gateway. The backbone has
	// the first address of each, the gateway the next.
	Transit []netip.Prefix `json:"transit,omitempty"`
	// BackboneAddresses holds the backbone's address in each of Subnets; empty
	// where it has no leg in the cluster.
	BackboneAddresses []netip.Addr `json:"backbone_addresses"`
	// Isolated keeps the cluster and all others apart in the backbone. Allow
	// names those that it may meet there, nil is all. Two clusters meet where
	// both allow it.
	Isolated bool     `json:"isolated,omitempty"`
	Allow    []string `json:"allow,omitempty"`
	Records  []Record `json:"records,omitempty"`
	Egress   string   `json:"egress,omitempty"` // "" is the backbone's
	MTU      int      `json:"mtu"`              // bytes
	// Switch is "host" where the machine has a bridge into the cluster, and
	// Attach are interfaces of the machine that become its ports.
	Switch   string    `json:"switch,omitempty"`
	Attach   []string  `json:"attach,omitempty"`
	Stations []Station `json:"stations"`
}

// Gateway is a default gateway that stands by.
type Gateway struct {
	Station string `json:"station"`
	Metric  uint32 `json:"metric"`
}

// Link is a wire between two stations, outside of any switch.
type Link struct {
	Ends    [2]LinkEnd     `json:"ends"`
	Subnets []netip.Prefix `json:"subnets,omitempty"`
	MTU     int            `json:"mtu"` // bytes
}

// LinkEnd is a station's interface on a link.
type LinkEnd struct {
	Station   string       `json:"station"` // "cluster/station"
	Name      string       `json:"name"`
	MAC       string       `json:"mac,omitempty"` // "" is one that follows from the names
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// Station is a container with a network namespace of its own.
type Station struct {
	Name    string `json:"name"`
	Cluster string `json:"cluster"`

	// Rootfs is "" for the built-in image or Image, "host" for the machine's own
	// programs, or an absolute folder.
	Rootfs string `json:"rootfs,omitempty"`
	// Image is the name of the image that the station runs on; Digest is which
	// one that is, once it is known (WithImage).
	Image      string `json:"image,omitempty"`
	Digest     string `json:"digest,omitempty"`
	PullPolicy string `json:"pull_policy,omitempty"` // "" is missing
	Platform   string `json:"platform,omitempty"`    // "" is the machine's
	// Writable says where the station's writes go: "disk" or "memory".
	Writable string `json:"writable"`

	// Addresses are those of the first interface: one for each of the cluster's
	// subnets, in their order, and then further ones.
	Addresses     []netip.Addr `json:"addresses"`
	InterfaceName string       `json:"interface_name,omitempty"` // "" is eth0
	MAC           string       `json:"mac,omitempty"`            // "" is one that follows from the name
	VLANs         VLANs        `json:"vlans,omitzero"`           // of the first interface
	Loopback      []netip.Addr `json:"loopback,omitempty"`       // on lo
	Interfaces    []Interface  `json:"interfaces,omitempty"`
	Routes        []Route      `json:"routes,omitempty"`
	Aliases       []string     `json:"aliases,omitempty"`
	// DNS holds whom the station asks instead of the backbone where they are in
	// the topology, and whom the backbone asks for it otherwise.
	DNS        []netip.Addr `json:"dns,omitempty"`
	DNSSearch  []string     `json:"dns_search,omitempty"` // nil is the cluster's domain, "." none
	DNSOpt     []string     `json:"dns_opt,omitempty"`
	ExtraHosts []ExtraHost  `json:"extra_hosts,omitempty"`
	Egress     string       `json:"egress,omitempty"` // "" is the cluster's
	Ports      []Port       `json:"ports,omitempty"`
	Exposed    []string     `json:"exposed,omitempty"` // what the image says it listens on, "80/tcp"; sorted

	// Entrypoint and Command are nil where the file does not set them.
	Entrypoint  []string `json:"entrypoint,omitempty"`
	Command     []string `json:"command,omitempty"`
	Environment []string `json:"environment,omitempty"` // NAME=value, sorted
	WorkingDir  string   `json:"working_dir,omitempty"`
	User        string   `json:"user,omitempty"`
	Hostname    string   `json:"hostname"`
	Volumes     []Volume `json:"volumes,omitempty"`
	// Startup is a command that must succeed before the station's own starts.
	Startup []string `json:"startup,omitempty"`
	// DependsOn names the stations that this one waits for.
	DependsOn       []Dependency  `json:"depends_on,omitempty"`
	Healthcheck     *Healthcheck  `json:"healthcheck,omitempty"` // nil is none, or the image's
	Restart         Restart       `json:"restart,omitzero"`
	StopSignal      string        `json:"stop_signal"` // SIGTERM unless set, SIGRTMIN+3 of a system manager; "" is the image's
	StopGracePeriod time.Duration `json:"stop_grace_period"`
	MemLimit        int64         `json:"mem_limit,omitempty"`  // bytes, 0 is none
	PidsLimit       int64         `json:"pids_limit,omitempty"` // 0 is none
	Resources       Resources     `json:"resources,omitzero"`
	Ulimits         []Ulimit      `json:"ulimits,omitempty"` // sorted by name
	OOMScoreAdj     int           `json:"oom_score_adj,omitempty"`
	GroupAdd        []string      `json:"group_add,omitempty"` // names or numbers in the root's /etc/group
	TTY             bool          `json:"tty,omitempty"`
	StdinOpen       bool          `json:"stdin_open,omitempty"`
	Init            bool          `json:"init,omitempty"`      // a tiny init is PID 1
	ReadOnly        bool          `json:"read_only,omitempty"` // the root
	Systemd         bool          `json:"systemd,omitempty"`   // the command is a system manager
	Tmpfs           []Tmpfs       `json:"tmpfs,omitempty"`
	Files           []File        `json:"files,omitempty"` // of configs and secrets
	Devices         []Device      `json:"devices,omitempty"`
	CapAdd          []string      `json:"cap_add,omitempty"`  // without CAP_, upper-case, or ALL; sorted
	CapDrop         []string      `json:"cap_drop,omitempty"` // likewise
	Privileged      bool          `json:"privileged,omitempty"`
	Security        Security      `json:"security,omitzero"`
	Sysctls         []Sysctl      `json:"sysctls,omitempty"` // namespaced ones only, sorted
	PID             string        `json:"pid,omitempty"`     // id of the station whose pid namespace it joins
	IPC             string        `json:"ipc,omitempty"`     // likewise
	Integrity       Integrity     `json:"integrity,omitzero"`
	Logging         Logging       `json:"logging,omitzero"`
	TLS             *TLS          `json:"tls,omitempty"`   // nil is none
	Trust           bool          `json:"trust,omitempty"` // some station of the topology has TLS
	// Profiles are those that the station belongs to; none: always enabled.
	Profiles []string          `json:"profiles,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	// Group is the station's name in the file where `replicas` made several of
	// it; the group's name is an alias of each.
	Group string `json:"group,omitempty"`
}

// Conditions of a Dependency, in compose's words.
const (
	Started               = "service_started"
	Healthy               = "service_healthy"
	CompletedSuccessfully = "service_completed_successfully"
)

// Dependency is a station that another waits for before it starts.
type Dependency struct {
	Station   string `json:"station"` // "cluster/station"
	Condition string `json:"condition"`
	// Restart asks to restart the dependent when a command restarts Station.
	Restart bool `json:"restart,omitempty"`
	// Optional: the dependent starts also when Station can't.
	Optional bool `json:"optional,omitempty"`
}

// UnmarshalJSON also takes the bare name that state files of format 1 have.
func (d *Dependency) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*d = Dependency{Condition: Started}
		return json.Unmarshal(data, &d.Station)
	}
	type plain Dependency
	return json.Unmarshal(data, (*plain)(d))
}

// Healthcheck is a command run inside a station that tells whether it is well.
type Healthcheck struct {
	// Test is the command; a shell's is /bin/sh -c TEXT. Until the image is known
	// it may be missing, for the image's, or be NoHealthcheck.
	Test          []string      `json:"test"`
	Interval      time.Duration `json:"interval"`
	Timeout       time.Duration `json:"timeout"`
	Retries       int           `json:"retries"` // failures in a row that make it unhealthy
	StartPeriod   time.Duration `json:"start_period"`
	StartInterval time.Duration `json:"start_interval"`
	// RestartUnhealthy asks to restart a station that became unhealthy.
	RestartUnhealthy bool `json:"restart_unhealthy,omitempty"`
}

// Restart policies.
const (
	RestartNo            = "no"
	RestartAlways        = "always"
	RestartOnFailure     = "on-failure"
	RestartUnlessStopped = "unless-stopped"
)

// Restart says what happens when a station ends by itself. The zero value is
// RestartNo.
type Restart struct {
	Policy     string `json:"policy"`
	MaxRetries int    `json:"max_retries,omitempty"` // of on-failure; 0 is no bound
}

// Logging bounds a station's log. Zero values are the defaults, 10 MiB and 2.
type Logging struct {
	MaxSize  int64 `json:"max_size,omitempty"`  // bytes of one file
	MaxFiles int   `json:"max_files,omitempty"` // files, the one written to among them
}

// Interface is a further interface of a station: eth1, eth2, ... in order.
type Interface struct {
	Cluster   string       `json:"cluster"`
	Addresses []netip.Addr `json:"addresses"`      // as Station.Addresses
	Name      string       `json:"name,omitempty"` // "" is eth and its number
	MAC       string       `json:"mac,omitempty"`  // "" is one that follows from the names
	MTU       int          `json:"mtu,omitempty"`  // bytes, 0 is the cluster's
	VLANs     VLANs        `json:"vlans,omitzero"`
}

// VLANs are the virtual LANs (IEEE 802.1Q) of an interface on its cluster's
// switch. The zero value is VLAN 1 without a tag, as of a port that nothing is
// said about.
type VLANs struct {
	Untagged int   `json:"untagged,omitempty"` // 0 with Tagged is none
	Tagged   []int `json:"tagged,omitempty"`   // sorted
}

// Types of a Route that lead nowhere (ip-route(8)).
const (
	RouteBlackhole   = "blackhole"
	RouteUnreachable = "unreachable"
	RouteProhibit    = "prohibit"
)

// Route is a route besides the default one. It has a next hop, an interface or
// both, or else a type that leads nowhere.
type Route struct {
	To     netip.Prefix `json:"to"`
	Via    netip.Addr   `json:"via,omitzero"`
	Dev    string       `json:"dev,omitempty"`
	Type   string       `json:"type,omitempty"` // "" is unicast
	Metric uint32       `json:"metric,omitempty"`
}

// Volume is a folder or file from outside the station's root.
type Volume struct {
	// Name is that of a named volume (a key of the topology's volumes), which
	// has no Source. Neither: an anonymous volume of the station's own.
	Name     string `json:"name,omitempty"`
	Source   string `json:"source"` // absolute, on the machine: a bind mount
	Target   string `json:"target"` // absolute, in the station
	ReadOnly bool   `json:"read_only,omitempty"`
	// CreateHostPath makes a missing source folder.
	CreateHostPath bool   `json:"create_host_path,omitempty"`
	Propagation    string `json:"propagation,omitempty"` // rprivate unless set
	SELinux        string `json:"selinux,omitempty"`     // z or Z
	NoCopy         bool   `json:"nocopy,omitempty"`      // do not fill a new volume from the root
	Subpath        string `json:"subpath,omitempty"`     // in a named volume
}

// NamedVolume is a folder that outlives the stations that use it.
type NamedVolume struct {
	Key      string            `json:"key"`                // how stations name it
	Name     string            `json:"name,omitempty"`     // on the machine; "" is <topology>_<key>
	External bool              `json:"external,omitempty"` // made and removed by others
	Labels   map[string]string `json:"labels,omitempty"`
}

// Resources are limits beside memory and processes.
type Resources struct {
	CPUs           float64 `json:"cpus,omitempty"`            // 1.5 is one and a half processors; 0 is no limit
	CPUShares      int64   `json:"cpu_shares,omitempty"`      // relative weight, 1024 is usual; 0 is the default
	CPUSet         string  `json:"cpuset,omitempty"`          // 0-3,7
	MemSwapLimit   int64   `json:"memswap_limit,omitempty"`   // bytes of memory and swap; -1 is unlimited swap, 0 unset
	MemReservation int64   `json:"mem_reservation,omitempty"` // bytes, a soft limit
	ShmSize        int64   `json:"shm_size,omitempty"`        // bytes of /dev/shm; 0 is 64 MiB
	Blkio          Blkio   `json:"blkio_config,omitzero"`
}

// Blkio are limits of block devices' use.
type Blkio struct {
	Weight          int           `json:"weight,omitempty"` // 10 to 1000
	WeightDevice    []BlkioWeight `json:"weight_device,omitempty"`
	DeviceReadBps   []BlkioRate   `json:"device_read_bps,omitempty"` // bytes a second
	DeviceReadIOps  []BlkioRate   `json:"device_read_iops,omitempty"`
	DeviceWriteBps  []BlkioRate   `json:"device_write_bps,omitempty"`
	DeviceWriteIOps []BlkioRate   `json:"device_write_iops,omitempty"`
}

// BlkioWeight is the weight of one device.
type BlkioWeight struct {
	Path   string `json:"path"`
	Weight int    `json:"weight"`
}

// BlkioRate is the bound of one device.
type BlkioRate struct {
	Path string `json:"path"`
	Rate int64  `json:"rate"`
}

// Ulimit is a resource limit (setrlimit(2)); -1 is unlimited.
type Ulimit struct {
	Name string `json:"name"` // nofile, nproc ...
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Tmpfs is a memory file system in the station.
type Tmpfs struct {
	Target  string `json:"target"`
	Size    int64  `json:"size,omitempty"` // bytes, 0 is the kernel's default
	Mode    uint32 `json:"mode,omitempty"` // 0 is 1777
	UID     int    `json:"uid,omitempty"`
	GID     int    `json:"gid,omitempty"`
	Options string `json:"options,omitempty"` // noexec and the like, comma-separated
}

// File is a config or a secret, put into the station as a file of its own.
type File struct {
	Source  string `json:"source,omitempty"`  // absolute, on the machine
	Content string `json:"content,omitempty"` // where there is no source
	// Variable is the environment's that Content is from; "" where the file has it.
	Variable string `json:"variable,omitempty"`
	// Digest is of what Source held when it was last looked at, "" as Load has it.
	Digest string `json:"digest,omitempty"`
	Secret bool   `json:"secret,omitempty"`
	Target string `json:"target"` // absolute, in the station
	UID    int    `json:"uid,omitempty"`
	GID    int    `json:"gid,omitempty"`
	Mode   uint32 `json:"mode"` // 0444 unless set
}

// Device is a device of the machine that the station may use.
type Device struct {
	Source      string `json:"source"`
	Target      string `json:"target"`
	Permissions string `json:"permissions"` // of r, w, m
}

// Security are the options of security_opt.
type Security struct {
	Seccomp string `json:"seccomp,omitempty"` // a profile's absolute path, or unconfined
	// Profile is what the file Seccomp held when it was last looked at, "" as Load has it.
	Profile       string `json:"profile,omitempty"`
	NewPrivileges bool   `json:"new_privileges,omitempty"`
	AppArmor      string `json:"apparmor,omitempty"`
	Label         string `json:"label,omitempty"`
}

// Sysctl is a kernel setting of the station's namespaces.
type Sysctl struct {
	Name  string `json:"name"` // with dots
	Value string `json:"value"`
}

// TLS asks for a certificate of the topology's own authority.
type TLS struct {
	Names []string `json:"names"` // DNS names and addresses, the station's own first
	Days  int      `json:"days"`  // how long it holds, from a start of the station
}

// Integrity names the files of a station that must match a manifest.
type Integrity struct {
	Paths    []string `json:"paths"`
	Manifest string   `json:"manifest"` // absolute
}

// ID is the station's name that is unique in its topology: "cluster/station".
func (s *Station) ID() string { return s.Cluster + "/" + s.Name }

// ContainerName is the name of the station's container and network namespace.
func (t *Topology) ContainerName(s *Station) string {
	return t.Name + "." + s.Cluster + "." + s.Name
}
