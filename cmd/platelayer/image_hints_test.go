package main

import (
	"strings"
	"testing"

	"platelayer/containers/image"
)

// TestRegistryHints tells a password that is wrong from a right that is missing,
// and what is private from what isn't there.
func TestRegistryHints(t *testing.T) {
	for _, c := range []struct {
		e    image.RegistryError
		want string
	}{
		{image.RegistryError{Status: 401}, "the image may be private, or not be there: sign in with docker login r.example, or podman login, as the user who runs sudo"},
		{image.RegistryError{Status: 401, Credentials: "FILE"}, "it refuses the credentials of FILE: sign in again with docker login r.example"},
		{image.RegistryError{Status: 403, Credentials: "FILE", Granted: true}, "it took the credentials of FILE, whose account may not do this, or there is no such image"},
		{image.RegistryError{Status: 403, Redirected: true}, "it is where the registry keeps its content"},
		{image.RegistryError{Status: 404}, "there is no such image, or it is private: check its name and its tag, or sign in with docker login r.example"},
		{image.RegistryError{Status: 404, Credentials: "FILE"}, "there is no such image: check its name and its tag"},
		{image.RegistryError{Status: 405, Credentials: "FILE"}, "it takes no images"},
		{image.RegistryError{Status: 429}, "allow more to those who sign in: docker login r.example"},
		{image.RegistryError{Status: 500}, ""},
	} {
		c.e.Account = "r.example"
		code, hint := classify(&c.e)
		if code != exitFailed || !strings.Contains(hint, c.want) || c.want == "" && hint != "" {
			t.Errorf("%d: got %d, %q", c.e.Status, code, hint)
		}
	}
}
