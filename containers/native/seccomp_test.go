package native

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// verdict runs the compiled filter as the kernel would.
func verdict(t *testing.T, vm *bpf.VM, number, arch uint32, args ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	// The interpreter reads big-endian words, the kernel native ones.
	put := func(off int, v uint32) { binary.BigEndian.PutUint32(data[off:], v) }
	put(dataNumber, number)
	put(dataArch, arch)
	for i, a := range args {
		put(dataArgs+8*i, uint32(a))
		put(dataArgs+8*i+4, uint32(a>>32))
	}
	out, err := vm.Run(data)
	must(t, err)
	return uint32(out)
}

func TestFilter(t *testing.T) {
	prog, err := compileDefault(defaultCaps)
	must(t, err)
	t.Logf("%d instructions", len(prog))
	vm, err := bpf.NewVM(prog)
	must(t, err)
	const allow = unix.SECCOMP_RET_ALLOW
	deny := func(e uint32) uint32 { return unix.SECCOMP_RET_ERRNO | e }
	for _, tc := range []struct {
		name   string
		number uint32
		args   []uint64
		want   uint32
	}{
		{"read", unix.SYS_READ, nil, allow},
		{"execve", unix.SYS_EXECVE, nil, allow},
		{"chroot", unix.SYS_CHROOT, nil, allow},
		{"mount", unix.SYS_MOUNT, nil, deny(uint32(unix.EPERM))},
		{"bpf", unix.SYS_BPF, nil, deny(uint32(unix.EPERM))},
		{"clone3", unix.SYS_CLONE3, nil, deny(uint32(unix.ENOSYS))},
		{"clone", unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, allow},
		{"clone newuser", unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER}, deny(uint32(unix.EPERM))},
		{"clone newns, high bits", unix.SYS_CLONE, []uint64{1<<40 | unix.CLONE_NEWNS}, deny(uint32(unix.EPERM))},
		{"clone, high bits", unix.SYS_CLONE, []uint64{1 << 40}, allow},
		{"personality 0", unix.SYS_PERSONALITY, []uint64{0}, allow},
		{"personality query", unix.SYS_PERSONALITY, []uint64{0xffffffff}, allow},
		{"personality 64-bit", unix.SYS_PERSONALITY, []uint64{1 << 32}, deny(uint32(unix.EPERM))},
		{"personality no randomness", unix.SYS_PERSONALITY, []uint64{0x40000}, deny(uint32(unix.EPERM))},
		{"inet", unix.SYS_SOCKET, []uint64{unix.AF_INET}, allow},
		{"alg", unix.SYS_SOCKET, []uint64{unix.AF_ALG}, deny(uint32(unix.EPERM))},
		{"39", unix.SYS_SOCKET, []uint64{39}, allow},
		{"vsock", unix.SYS_SOCKET, []uint64{unix.AF_VSOCK}, deny(uint32(unix.EPERM))},
		{"xdp", unix.SYS_SOCKET, []uint64{unix.AF_XDP}, allow},
		{"unknown", 9999, nil, deny(uint32(unix.EPERM))},
		{"x32", x32Bit | unix.SYS_READ, nil, deny(uint32(unix.EPERM))},
	} {
		if got := verdict(t, vm, tc.number, auditArch, tc.args...); got != tc.want {
			t.Errorf("%s: got %#x, want %#x", tc.name, got, tc.want)
		}
	}
	if got := verdict(t, vm, unix.SYS_READ, 0x40000003); got != deny(uint32(unix.EPERM)) {
		t.Errorf("another architecture: got %#x", got)
	}
}

// TestFilterMatchesProfile compares each number with the rules the filter was
// made from, as the search tree is where a mistake would hide.
func TestFilterMatchesProfile(t *testing.T) {
	rules := defaultRules(t)
	prog, err := compileDefault(defaultCaps)
	must(t, err)
	vm, err := bpf.NewVM(prog)
	must(t, err)
	for n := range uint32(1000) {
		want := uint32(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
		r, ok := rules[n]
		switch {
		case ok && len(r.ways) > 0:
			continue
		case ok:
			want = r.answer
		}
		if got := verdict(t, vm, n, auditArch); got != want {
			t.Errorf("system call %d: got %#x, want %#x", n, got, want)
		}
	}
}

func defaultRules(t *testing.T) map[uint32]rule {
	t.Helper()
	profile, err := defaultProfile(defaultCaps)
	must(t, err)
	list, _, err := profileRules(profile)
	must(t, err)
	m := map[uint32]rule{}
	for _, r := range list {
		m[r.number] = r
	}
	return m
}
