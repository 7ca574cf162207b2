package native

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Args[0] == InitName {
		os.Exit(Init(os.Args[1:], os.Stderr))
	}
	os.Exit(m.Run())
}
