//go:build amd64 || arm64

package native

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Go program would be there with half a dozen threads, all of which count
// against the container's limits. So init is a program of a few hundred bytes,
// in init_amd64.s and init_arm64.s, which the engine copies into a file.

// initCode is where the code begins.
var initCode unsafe.Pointer

// initMessage is what init says when it cannot execute the command.
const initMessage = initName + ": cannot execute the command\n"

// Where init is in memory, and in its file what the code finds by its address.
const (
	initBase    = 0x10000000
	initStrings = 0xc0
	initEntry   = 0x100
)

// initProgram is the file: an ELF header, two program headers (elf(5)), the name
// and the message, and the code up to its mark.
func initProgram() ([]byte, error) {
	const most = 2048
	code := unsafe.Slice((*byte)(initCode), most)
	end := bytes.Index(code, []byte{0xf0, 'e', 'n', 'd', 'i', 'n', 'i', 't'})
	if end < 0 {
		return nil, errors.New("cannot find the end of the init's code")
	}
	size := uint64(initEntry + end)
	var b bytes.Buffer
	put := func(fields ...any) {
		for _, f := range fields {
			_ = binary.Write(&b, binary.LittleEndian, f) // a buffer takes all
		}
	}
	b.WriteString("\x7fELF\x02\x01\x01")
	put([9]byte{}, uint16(2), initMachine, uint32(1))                        // an executable file
	put(uint64(initBase+initEntry), uint64(64), uint64(0), uint32(0))        // entry, program headers
	put(uint16(64), uint16(56), uint16(2), uint16(0), uint16(0), uint16(0))  // sizes, counts
	put(uint32(1), uint32(5), uint64(0), uint64(initBase), uint64(initBase)) // all of it, to read and execute
	put(size, size, uint64(0x10000))
	put(uint32(0x6474e551), uint32(6), [5]uint64{}, uint64(16)) // a stack that isn't executable
	b.Write(make([]byte, initStrings-b.Len()))
	b.WriteString(initName + "\x00" + initMessage)
	b.Write(make([]byte, initEntry-b.Len()))
	b.Write(code[:end])
	return b.Bytes(), nil
}

// openInit makes init's file in memory and seals it: a container cannot write
// to it through /proc.
func openInit() (int, error) {
	program, err := initProgram()
	if err != nil {
		return -1, err
	}
	// A child with the writable descriptor would keep it from being executed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(initName, flags|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate(initName, flags)
	}
	if err != nil {
		return -1, fmt.Errorf("cannot make the init's file: %w", err)
	}
	f := os.NewFile(uintptr(fd), initName)
	defer f.Close()
	if _, err := f.Write(program); err != nil {
		return -1, fmt.Errorf("cannot write the init's file: %w", err)
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	if err = errors.Join(err, unix.Fchmod(fd, 0o555)); err != nil {
		return -1, fmt.Errorf("cannot seal the init's file: %w", err)
	}
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_PATH|unix.O_CLOEXEC, 0)
}
