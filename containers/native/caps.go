package native

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// capNames are all capabilities in the order of their numbers
// (linux/capability.h).
var capNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

// defaultCaps are Docker's default capabilities less MKNOD
// (github.com/moby/moby/v2/daemon/pkg/oci/caps/defaults.go).
const defaultCaps uint64 = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FSETID | 1<<unix.CAP_FOWNER |
	1<<unix.CAP_NET_RAW | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_SETPCAP |
	1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_KILL | 1<<unix.CAP_AUDIT_WRITE

// capList names the capabilities of a set.
func capList(mask uint64) []string {
	var names []string
	for i, name := range capNames {
		if mask&(1<<i) != 0 {
			names = append(names, "CAP_"+name)
		}
	}
	return names
}

// capSet reads names with or without CAP_; ALL is all that there are.
func capSet(names []string) (uint64, error) {
	var mask uint64
	for _, name := range names {
		name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		i := slices.Index(capNames[:], name)
		switch {
		case name == "ALL":
			mask |= 1<<len(capNames) - 1
		case i < 0:
			return 0, fmt.Errorf("unknown capability %q", name)
		default:
			mask |= 1 << i
		}
	}
	return mask, nil
}

// tweakCaps changes the default set as Docker does: ALL on one side leaves the
// other's exceptions.
func tweakCaps(add, drop []string) (uint64, error) {
	more, err := capSet(add)
	if err != nil {
		return 0, err
	}
	less, err := capSet(drop)
	if err != nil {
		return 0, err
	}
	const all = 1<<len(capNames) - 1
	switch {
	case more == all:
		return all &^ less, nil
	case less == all:
		return more, nil
	}
	return defaultCaps&^less | more, nil
}

// heldCaps are the capabilities that this process has and so can give.
func heldCaps() (uint64, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, fmt.Errorf("cannot read this process's capabilities: %w", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

// grantCaps is the set for a container; of ALL it is what there is to give.
func grantCaps(add, drop []string, privileged bool) (uint64, error) {
	if privileged {
		add = []string{"ALL"}
		drop = nil
	}
	mask, err := tweakCaps(add, drop)
	if err != nil || mask == defaultCaps {
		return mask, err
	}
	held, err := heldCaps()
	if err != nil {
		return 0, err
	}
	if lacking := mask &^ held; lacking != 0 && !slices.ContainsFunc(add, func(s string) bool { return strings.EqualFold(s, "ALL") }) {
		return 0, &containers.Unsupported{Feature: "the capabilities " + strings.Join(capList(lacking), ", ")}
	}
	return mask & held, nil
}

// credentials adds the change from the machine's root to a container's user:
// the bounding set first, as dropping from it needs CAP_SETPCAP, the sets
// themselves last, as the changes of ids need theirs.
func (p *program) credentials(u *identity, w *powers) {
	mask := w.caps
	for c := uintptr(0); c <= lastCap; c++ {
		if mask&(1<<c) == 0 {
			p.add("drop a capability", opMayLackCap, unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c)
		}
	}
	p.add("clear the ambient capabilities", 0, unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL)
	p.add("set the securebits", 0, unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 0)
	p.add("clear keepcaps", 0, unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0)
	if !w.newPrivileges {
		p.add("set no_new_privs", 0, unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	}
	var groups uintptr
	if len(u.groups) > 0 {
		groups = mem(p, &u.groups[0])
	}
	p.add("set the groups", 0, unix.SYS_SETGROUPS, uintptr(len(u.groups)), groups)
	gid, uid := uintptr(u.gid), uintptr(u.uid)
	p.add("set the group", 0, unix.SYS_SETRESGID, gid, gid, gid)
	p.add("set the user", 0, unix.SYS_SETRESUID, uid, uid, uid)
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{}
	if u.uid == 0 {
		for i := range data {
			half := uint32(mask >> (32 * i))
			data[i].Permitted, data[i].Effective = half, half
		}
	}
	p.add("set the capabilities", 0, unix.SYS_CAPSET, mem(p, hdr), mem(p, data))
}

// lastCap is the highest capability a kernel could have; PR_CAPBSET_DROP of
// one it doesn't know costs nothing.
const lastCap = 47
