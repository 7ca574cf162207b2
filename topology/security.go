package topology

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// capabilities are those of capabilities(7), without CAP_.
func capabilities() []string {
	return []string{"AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
		"DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE",
		"MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP",
		"SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT",
		"SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM"}
}

// security reads what changes a station's rights.
func (l *loader) security(s *stationDraft) {
	s.out.CapAdd = l.capabilities(s.body.get("cap_add"))
	s.out.CapDrop = l.capabilities(s.body.get("cap_drop"))
	s.out.Privileged = s.body.get("privileged").isTrue()
	s.out.Devices = l.devices(s)
	l.securityOptions(s)
	s.out.Sysctls = l.sysctls(s.body.get("sysctls"))
}

func (n *node) isTrue() bool { return n != nil && strings.EqualFold(n.text, "true") }

func (l *loader) capabilities(n *node) []string {
	var out []string
	for _, item := range n.good() {
		name := strings.TrimPrefix(strings.ToUpper(item.text), "CAP_")
		if name != "ALL" && !slices.Contains(capabilities(), name) {
			hint := nearestHint(name, capabilities(), "names are those of capabilities(7), or ALL")
			l.spoil(item, fmt.Sprintf("there is no capability %s", quoted(item.text)), hint)
			continue
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (l *loader) devices(s *stationDraft) []Device {
	var out []Device
	for _, n := range s.body.get("devices").good() {
		d, ok := Device{Permissions: "rwm"}, false
		source, target, permissions := n, n, (*node)(nil)
		if n.kind == mapping {
			if source = n.get("source"); source == nil {
				continue
			}
			if target = n.get("target"); target == nil {
				target = source
			}
			permissions = n.get("permissions")
		} else {
			parts := strings.Split(n.text, ":")
			if len(parts) > 3 {
				l.spoil(n, fmt.Sprintf("%s is not a device", quoted(n.text)), "write HOST, HOST:STATION or HOST:STATION:rwm")
				continue
			}
			source = &node{position: n.position, text: parts[0]}
			target = source
			if len(parts) > 1 {
				target = &node{position: n.position, text: parts[1]}
				if onlyPermissions(parts[1]) {
					target, permissions = source, target
				}
			}
			if len(parts) > 2 {
				permissions = &node{position: n.position, text: parts[2]}
			}
		}
		if !path.IsAbs(source.text) && strings.Contains(source.text, "=") {
			l.spoil(source, fmt.Sprintf("%s is a CDI device, and there are none here", quoted(source.text)), "name the device's file: /dev/...")
			continue
		}
		if d.Source, ok = l.absolute(source); !ok {
			continue
		}
		if d.Target, ok = l.absolute(target); !ok {
			continue
		}
		if permissions != nil {
			if d.Permissions = permissions.text; !onlyPermissions(d.Permissions) {
				l.spoil(permissions, fmt.Sprintf("%s are not a device's permissions", quoted(permissions.text)), "some of r (read), w (write) and m (make)")
				continue
			}
		}
		if l.claimTarget(s, n, d.Target) {
			out = append(out, d)
		}
	}
	return out
}

// onlyPermissions tells whether s is of r, w and m, each at most once.
func onlyPermissions(s string) bool {
	return s != "" && strings.Trim(s, "rwm") == "" && strings.Count(s, "r") < 2 && strings.Count(s, "w") < 2 && strings.Count(s, "m") < 2
}

func (l *loader) securityOptions(s *stationDraft) {
	out := &s.out.Security
	seen := map[string]bool{}
	for _, n := range s.body.get("security_opt").good() {
		at := strings.IndexAny(n.text, "=:")
		name, value := n.text, ""
		if at >= 0 {
			name, value = n.text[:at], n.text[at+1:]
		}
		if seen[name] {
			l.spoil(n, fmt.Sprintf("security_opt %s is given twice", name), "keep one")
			continue
		}
		seen[name] = true
		if value == "" && name != "no-new-privileges" && slices.Contains([]string{"seccomp", "apparmor", "label"}, name) {
			l.spoil(n, fmt.Sprintf("security_opt %s has no value", name), "write "+name+"=VALUE")
			continue
		}
		switch name {
		case "seccomp":
			if out.Seccomp = value; value != "unconfined" {
				out.Seccomp, _ = l.machinePath(n, value)
			}
		case "no-new-privileges":
			switch value {
			case "", "true":
			case "false":
				out.NewPrivileges = true
			default:
				l.spoil(n, fmt.Sprintf("no-new-privileges cannot be %s", quoted(value)), "true or false; true is the default here")
			}
		case "apparmor":
			out.AppArmor = value
		case "label":
			kind, _, _ := strings.Cut(value, ":")
			if !slices.Contains([]string{"disable", "user", "role", "type", "level", "filetype", "nested"}, kind) {
				l.spoil(n, fmt.Sprintf("%s is not a label option", quoted(value)), "it is disable, or user:, role:, type: or level: with a value")
			}
			out.Label = value
		case "systempaths", "writable-cgroups", "proc-opts":
			l.spoil(n, fmt.Sprintf("security_opt %s is not available", name), "remove it; what masks the kernel's files stays")
		default:
			l.spoil(n, fmt.Sprintf("%s is not a security option", quoted(n.text)), "seccomp=FILE, no-new-privileges:true, apparmor=PROFILE or label=...")
		}
	}
}

var sysctlName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+$`)

// sysctls reads kernel settings; only those of the station's own namespaces
// are taken (namespaces(7)), as docker does.
func (l *loader) sysctls(n *node) []Sysctl {
	var out []Sysctl
	seen := map[string]bool{}
	add := func(at *node, name, value string) {
		message, hint := "", ""
		switch {
		case !sysctlName.MatchString(name):
			message, hint = fmt.Sprintf("%s is not a kernel setting", quoted(name)), "write it with dots: net.core.somaxconn"
		case seen[name]:
			message, hint = fmt.Sprintf("%s is set twice", name), "remove one"
		case name == "kernel.hostname":
			message, hint = name+" is not set this way", "write hostname in the station"
		case name == "kernel.domainname":
			message, hint = name+" is not set this way", "write domain in the cluster"
		case !namespaced(name):
			message = fmt.Sprintf("%s belongs to the whole machine, not to a station", name)
			hint = "only net.*, fs.mqueue.* and the kernel's shared memory, messages and semaphores are a station's own"
		case value == "" || strings.ContainsAny(value, "\n\x00"):
			message, hint = fmt.Sprintf("%s has no value that fits in a line", name), "write NAME: value"
		}
		if message != "" {
			l.spoil(at, message, hint)
			return
		}
		seen[name] = true
		out = append(out, Sysctl{name, value})
	}
	for _, p := range n.all() {
		if !p.val.bad {
			add(&node{position: p.at}, p.key, p.val.text)
		}
	}
	if n != nil {
		for _, item := range n.items {
			if !item.bad {
				name, value, _ := strings.Cut(item.text, "=")
				add(item, strings.TrimSpace(name), strings.TrimSpace(value))
			}
		}
	}
	slices.SortFunc(out, func(a, b Sysctl) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func namespaced(name string) bool {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
		"kernel.shm_rmid_forced":
		return true
	}
	return strings.HasPrefix(name, "net.") || strings.HasPrefix(name, "fs.mqueue.")
}

// sharedWith returns the reference in pid or ipc to another station; nil
// where there is none.
func (l *loader) sharedWith(s *stationDraft, key string) *node {
	n := s.body.get(key)
	if n == nil {
		return nil
	}
	kind, name, ok := strings.Cut(n.text, ":")
	switch {
	case ok && name != "" && (kind == "service" || kind == "station"):
		return &node{position: n.position, text: name}
	case key == "ipc" && (n.text == "shareable" || n.text == "private"):
	case n.text == "host":
		l.spoil(n, key+" cannot be the machine's", "a station that saw the machine's processes or memory would be no station: remove it")
	case kind == "container":
		l.spoil(n, key+" cannot name a container", "write station:NAME")
	default:
		l.spoil(n, fmt.Sprintf("%s cannot be %s", key, quoted(n.text)), "write station:NAME, or remove it")
	}
	return nil
}
