//go:build !amd64 && !arm64

package native

const (
	auditArch      = 0
	syscallNumbers = ""
)
