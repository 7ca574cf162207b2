package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
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
		{image.RegistryError{Status: 400}, ""},
		{image.RegistryError{Status: 400, Registry: "http://r.example"}, "it may want TLS: leave out --plain-http"},
		{image.RegistryError{Status: 500}, ""},
	} {
		c.e.Account = "r.example"
		code, hint := classify(&c.e)
		if code != exitFailed || !strings.Contains(hint, c.want) || c.want == "" && hint != "" {
			t.Errorf("%d: got %d, %q", c.e.Status, code, hint)
		}
	}
}

// TestUnreachableHints tells what to do about a registry that has no TLS, or a
// certificate that doesn't count for it.
func TestUnreachableHints(t *testing.T) {
	wrap := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{http.ErrSchemeMismatch, "--plain-http, or plain_http in"},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, "--plain-http, or plain_http in"},
		{wrap(x509.UnknownAuthorityError{}), "/etc/docker/certs.d/r.example/ca.crt"},
		{wrap(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "r.example"}), "call it by a name that its certificate has"},
		{wrap(x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}), "if this machine's clock is right"},
		{io.EOF, "image load, image import and bundle load"},
	} {
		code, hint := classify(&image.UnreachableError{Host: "r.example", Err: c.err})
		if code != exitFailed || !strings.Contains(hint, c.want) {
			t.Errorf("%v: got %d, %q", c.err, code, hint)
		}
	}
}
