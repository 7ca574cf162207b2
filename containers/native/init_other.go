//go:build !amd64 && !arm64

package native

import "platelayer/containers"

func openInit() (int, error) {
	return -1, &containers.Unsupported{Feature: "an engine for this processor"}
}
