package native

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// allowedDevices is what a container may open (Docker's default, from
// github.com/moby/moby/v2/daemon/pkg/oci/defaults.go); nodes of any device may
// be made, which still needs a capability that containers lack.
var allowedDevices = [...]struct{ major, minor int32 }{
	{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2},
}

const ptsMajor = 136

// insn encodes one BPF instruction (linux/bpf.h struct bpf_insn).
func insn(code, regs uint8, off int16, imm int32) []byte {
	b := []byte{code, regs, 0, 0, 0, 0, 0, 0}
	binary.NativeEndian.PutUint16(b[2:], uint16(off))
	binary.NativeEndian.PutUint32(b[4:], uint32(imm))
	return b
}

// deviceProgram reads struct bpf_cgroup_dev_ctx {access_type, major, minor}
// and answers 1 for allowed.
func deviceProgram(more []device) []byte {
	const (
		load  = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
		mov   = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
		movR  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
		shift = unix.BPF_ALU64 | unix.BPF_RSH | unix.BPF_K
		and   = unix.BPF_ALU64 | unix.BPF_AND | unix.BPF_K
		jne   = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
		jset  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		exit  = unix.BPF_JMP | unix.BPF_EXIT
		read  = unix.BPF_DEVCG_ACC_READ
		write = unix.BPF_DEVCG_ACC_WRITE
	)
	var p []byte
	add := func(code, regs uint8, off int16, imm int32) { p = append(p, insn(code, regs, off, imm)...) }
	add(load, 0x12, 0, 0) // r2 = access_type
	add(load, 0x14, 4, 0) // r4 = major
	add(load, 0x15, 8, 0) // r5 = minor
	add(movR, 0x23, 0, 0)
	add(shift, 0x03, 0, 16)        // r3 = access
	add(and, 0x02, 0, 0xffff)      // r2 = type
	add(mov, 0x00, 0, 1)           // allowed, so far
	add(jset, 0x03, 1, read|write) // only made, not opened: done
	add(exit, 0, 0, 0)
	for _, d := range more {
		kind := int32(unix.BPF_DEVCG_DEV_CHAR)
		if d.mode&unix.S_IFMT == unix.S_IFBLK {
			kind = unix.BPF_DEVCG_DEV_BLOCK
		}
		add(jne, 0x02, 4, kind)
		add(jne, 0x04, 3, int32(unix.Major(d.number)))
		add(jne, 0x05, 2, int32(unix.Minor(d.number)))
		add(jset, 0x03, 1, int32(^d.access&(read|write)))
		add(exit, 0, 0, 0)
	}
	add(jne, 0x02, int16(2+3*len(allowedDevices)), unix.BPF_DEVCG_DEV_CHAR) // to the denial
	add(jne, 0x04, 1, ptsMajor)
	add(exit, 0, 0, 0)
	for _, d := range allowedDevices {
		add(jne, 0x04, 2, d.major)
		add(jne, 0x05, 1, d.minor)
		add(exit, 0, 0, 0)
	}
	add(mov, 0x00, 0, 0)
	add(exit, 0, 0, 0)
	return p
}

// loadTries bounds how often signals may interrupt the loading of a program.
const loadTries = 100

// loadDeviceFilter loads the program that allows further devices too. The one
// without is loaded once; cgroups share it.
func (h *hierarchies) loadDeviceFilter(more []device) (int, error) {
	if h.v2 == "" {
		return -1, nil
	}
	code := deviceProgram(more)
	license := []byte("Apache-2.0\x00")
	// The first fields of union bpf_attr for BPF_PROG_LOAD.
	attr := struct {
		progType, count           uint32
		insns, license            *byte
		logLevel, logSize         uint32
		logBuf                    uint64
		kernVersion, flags        uint32
		name                      [16]byte
		ifindex, expectedAttachTy uint32
	}{
		progType: unix.BPF_PROG_TYPE_CGROUP_DEVICE,
		count:    uint32(len(code) / 8),
		insns:    &code[0],
		license:  &license[0],
		name:     [16]byte{'p', 'l', 'a', 't', 'e', 'l', 'a', 'y', 'e', 'r'},
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	// EAGAIN: the verifier gives up when a signal is pending, as the Go
	// runtime's own often are (kernel/bpf/verifier.c, do_check).
	for tries := 0; errno == unix.EAGAIN && tries < loadTries; tries++ {
		fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	}
	runtime.KeepAlive(&attr)
	if errno != 0 {
		return -1, &containers.Unsupported{Feature: "the cgroup device filter", Err: errno}
	}
	return int(fd), nil
}

// attachDeviceFilter puts a program in the place of those that earlier runs
// left, as a cgroup outlives its container; all that are attached must allow.
// With -1 it only takes those away.
func attachDeviceFilter(dir string, prog int) error {
	cg, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the cgroup %s: %w", dir, err)
	}
	defer closeFD(cg)
	old, err := attachedFilters(cg)
	if err != nil {
		return err
	}
	if prog >= 0 {
		attr := progAttach{uint32(cg), uint32(prog), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI, 0}
		// EINVAL: it is attached already.
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if errno != 0 && errno != unix.EINVAL {
			return fmt.Errorf("cannot attach the device filter: %w", errno)
		}
		if errno == unix.EINVAL && len(old) == 1 {
			return nil
		}
	}
	for _, id := range old {
		if err := detachFilter(cg, id, prog); err != nil {
			return err
		}
	}
	return nil
}

// progAttach is what union bpf_attr of linux/bpf.h has for BPF_PROG_ATTACH.
type progAttach struct{ target, prog, attachType, flags, replace uint32 }

// attachedFilters lists the ids of a cgroup's own device programs.
func attachedFilters(cg int) ([]uint32, error) {
	ids := make([]uint32, 64)
	attr := struct {
		target, attachType, queryFlags, attachFlags uint32
		ids                                         *uint32
		count, _                                    uint32
		progFlags                                   uint64
	}{target: uint32(cg), attachType: unix.BPF_CGROUP_DEVICE, ids: &ids[0], count: uint32(len(ids))}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&attr)
	if errno != 0 {
		return nil, fmt.Errorf("cannot list the device filters: %w", errno)
	}
	return ids[:attr.count], nil
}

// detachFilter takes a program away unless it is the one to keep.
func detachFilter(cg int, id uint32, keep int) error {
	if keep >= 0 {
		kept, err := programID(keep)
		if err != nil || kept == id {
			return err
		}
	}
	attr := struct{ id, next, flags uint32 }{id: id}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_GET_FD_BY_ID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno == unix.ENOENT {
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("cannot open a device filter: %w", errno)
	}
	defer closeFD(int(fd))
	gone := progAttach{uint32(cg), uint32(fd), unix.BPF_CGROUP_DEVICE, 0, 0}
	_, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_DETACH, uintptr(unsafe.Pointer(&gone)), unsafe.Sizeof(gone))
	if errno != 0 && errno != unix.ENOENT {
		return fmt.Errorf("cannot detach a device filter: %w", errno)
	}
	return nil
}

// programID reads it from the second word of struct bpf_prog_info.
func programID(prog int) (uint32, error) {
	info := [2]uint32{}
	attr := struct {
		fd, length uint32
		info       *uint32
	}{uint32(prog), uint32(unsafe.Sizeof(info)), &info[0]}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET_INFO_BY_FD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&attr)
	if errno != 0 {
		return 0, fmt.Errorf("cannot identify the device filter: %w", errno)
	}
	return info[1], nil
}
