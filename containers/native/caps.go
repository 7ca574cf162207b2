package native

import "golang.org/x/sys/unix"

// defaultCaps are Docker's default capabilities less MKNOD
// (github.com/moby/moby/v2/daemon/pkg/oci/caps/defaults.go).
var defaultCaps = [...]struct {
	name string
	bit  uint
}{
	{"CAP_CHOWN", unix.CAP_CHOWN},
	{"CAP_DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE},
	{"CAP_FSETID", unix.CAP_FSETID},
	{"CAP_FOWNER", unix.CAP_FOWNER},
	{"CAP_NET_RAW", unix.CAP_NET_RAW},
	{"CAP_SETGID", unix.CAP_SETGID},
	{"CAP_SETUID", unix.CAP_SETUID},
	{"CAP_SETFCAP", unix.CAP_SETFCAP},
	{"CAP_SETPCAP", unix.CAP_SETPCAP},
	{"CAP_NET_BIND_SERVICE", unix.CAP_NET_BIND_SERVICE},
	{"CAP_SYS_CHROOT", unix.CAP_SYS_CHROOT},
	{"CAP_KILL", unix.CAP_KILL},
	{"CAP_AUDIT_WRITE", unix.CAP_AUDIT_WRITE},
}

func capMask() uint64 {
	var m uint64
	for _, c := range defaultCaps {
		m |= 1 << c.bit
	}
	return m
}

// credentials adds the change from the machine's root to a container's user:
// the bounding set first, as dropping from it needs CAP_SETPCAP, the sets
// themselves last, as the changes of ids need theirs.
func (p *program) credentials(u *identity) {
	mask := capMask()
	for c := uintptr(0); c <= lastCap; c++ {
		if mask&(1<<c) == 0 {
			p.add("drop a capability", opMayLackCap, unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c)
		}
	}
	p.add("clear the ambient capabilities", 0, unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL)
	p.add("set the securebits", 0, unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 0)
	p.add("clear keepcaps", 0, unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0)
	p.add("set no_new_privs", 0, unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
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
