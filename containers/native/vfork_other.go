//go:build !amd64 && !arm64

package native

import "syscall"

const vforkSupported = false

func spawn(*cloneArgs, []op, *report) (int, syscall.Errno) { return 0, syscall.ENOSYS }
