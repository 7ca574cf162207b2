// Command probe tries from inside a container what a test asks for.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	switch os.Args[1] {
	case "icmp":
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, syscall.IPPROTO_ICMP)
		if err == nil {
			err = syscall.Sendto(fd, []byte{8, 0, 0, 0, 0, 0, 0, 1}, 0, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		}
		fmt.Println("icmp:", err)
	case "uid":
		fmt.Println(os.Geteuid())
	case "netlink":
		fmt.Println(newLink())
	case "ptrace":
		pid, _ := strconv.Atoi(os.Args[2])
		fmt.Println(syscall.PtraceAttach(pid))
	case "keyring": // KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING
		id, _, errno := syscall.Syscall(sysKeyctl(), 0, ^uintptr(2), 0)
		fmt.Println(int32(id), errno)
	case "unix":
		conn, err := net.Dial("unix", os.Args[2])
		if err != nil {
			fmt.Println("refused")
			return
		}
		b, _ := io.ReadAll(conn)
		fmt.Println(string(b))
	case "nest":
		fmt.Println(nest(os.Args[2]))
	case "overwrite":
		address, _ := strconv.ParseInt(os.Args[2], 10, 64)
		overwrite(address)
	case "hunt":
		hunt()
	}
}

// nest makes folders in one another until that is refused, and counts them.
func nest(dir string) int {
	if err := os.Chdir(dir); err != nil {
		return -1
	}
	name := strings.Repeat("n", 250)
	for n := 0; ; n++ {
		if err := os.Mkdir(name, 0o755); err != nil && !os.IsExist(err) || n == 100 {
			return n
		}
		if err := os.Chdir(name); err != nil {
			return -n
		}
	}
}

func sysKeyctl() uintptr {
	if runtime.GOARCH == "arm64" {
		return 219
	}
	return 250
}

// newLink asks rtnetlink(7) for a new link without saying of which kind: who may
// make links gets another refusal than who may not.
func newLink() error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW, syscall.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	msg := make([]byte, 32)
	binary.NativeEndian.PutUint32(msg, 32)
	binary.NativeEndian.PutUint16(msg[4:], syscall.RTM_NEWLINK)
	binary.NativeEndian.PutUint16(msg[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_ACK|syscall.NLM_F_CREATE)
	if err := syscall.Sendto(fd, msg, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	if _, _, err := syscall.Recvfrom(fd, answer, 0); err != nil {
		return err
	}
	return syscall.Errno(-int32(binary.NativeEndian.Uint32(answer[16:])))
}

// overwrite writes at an address of whatever program of the engine's it finds
// until /tmp/stop exists.
func overwrite(address int64) {
	wrote := false
	for self := fmt.Sprintf("/proc/%d", os.Getpid()); ; {
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range procs {
			if p == self {
				continue
			}
			f, err := os.OpenFile(p+"/mem", os.O_RDWR, 0)
			if err != nil {
				continue
			}
			b := make([]byte, 9)
			if _, err := f.ReadAt(b, address); err == nil && string(b) == "untouched" {
				fds, _ := filepath.Glob(p + "/fd/*")
				for _, fd := range fds {
					to, err := os.Readlink(fd)
					if n, _ := strconv.Atoi(filepath.Base(fd)); err == nil && n > 2 {
						fmt.Println("LEAK: descriptor of", to)
					}
				}
				_, err = f.WriteAt([]byte("OVERWRITE"), address)
				wrote = wrote || err == nil
			}
			f.Close()
		}
		if _, err := os.Stat("/tmp/stop"); err == nil {
			fmt.Println("wrote", wrote)
			return
		}
	}
}

// hunt opens whatever /proc shows of other processes until /tmp/stop exists.
// A command of the image may be opened; a program that isn't is the engine's.
func hunt() {
	self := fmt.Sprintf("/proc/%d", os.Getpid())
	seen, closed := 0, 0
	for {
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range procs {
			if p == self {
				continue
			}
			seen++
			exe, err := os.Readlink(p + "/exe")
			if err != nil {
				closed++
			} else if exe != "/bin/busybox" {
				fmt.Println("LEAK: exe", exe)
			}
			maps, _ := os.ReadFile(p + "/maps")
			if strings.Contains(string(maps), "native.test") {
				fmt.Println("LEAK: maps")
			}
			fds, _ := filepath.Glob(p + "/fd/*")
			for _, fd := range fds {
				if n := filepath.Base(fd); n == "0" || n == "1" || n == "2" {
					continue
				}
				if to, err := os.Readlink(fd); err == nil {
					fmt.Println("LEAK: descriptor of", to)
				}
			}
			if f, err := os.OpenFile(p+"/mem", os.O_RDWR, 0); err == nil {
				if now, _ := os.Readlink(p + "/exe"); now != "/bin/busybox" && now != "" {
					fmt.Println("LEAK: mem of", now)
				}
				f.Close()
			}
		}
		if _, err := os.Stat("/tmp/stop"); err == nil {
			fmt.Println("seen", seen > 0, "closed", closed > 0)
			return
		}
	}
}
