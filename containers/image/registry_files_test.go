package image

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestHelperErrors shows why a credential program fails: most print that where
// the answer would be.
func TestHelperErrors(t *testing.T) {
	for script, want := range map[string]string{
		`echo 'gpg: decryption failed: No secret key'; exit 1`:                      "exit status 1: gpg: decryption failed: No secret key",
		`echo '{"Username":"ada","Secret":"s3cret"}'; exit 1`:                       "exit status 1",
		`echo '{"Username":"ada","Secret":"s3cret"}'; echo 'is locked' >&2; exit 1`: "exit status 1: is locked",
		`echo 's3cret'`: "its answer is not JSON",
	} {
		c := asUser(t, map[string]string{"bin/docker-credential-x": "#!/bin/sh\n" + script + "\n"})
		if _, err := c.ask(t.Context(), "x", "r.example"); err == nil || err.Error() != want {
			t.Errorf("%s: got %v", script, err)
		}
	}
}

// TestCredentialFiles looks where podman keeps them without a session, too.
func TestCredentialFiles(t *testing.T) {
	c := Credentials{User: User{UID: 4711, Home: "/home/ada"}, Getenv: func(string) string { return "" }}
	want := "/home/ada/.docker/config.json /run/user/4711/containers/auth.json /run/containers/4711/auth.json /home/ada/.config/containers/auth.json"
	if got := strings.Join(c.files(), " "); got != want {
		t.Errorf("got %s", got)
	}
}

// TestCertificatesOfUser reads a user's own folder as the user.
func TestCertificatesOfUser(t *testing.T) {
	r := httptest.NewTLSServer(newTestRegistry(t).inner)
	defer r.Close()
	home := t.TempDir()
	u := User{UID: os.Getuid(), Home: home, Name: "ada"}
	host := strings.TrimPrefix(r.URL, "https://")
	path := filepath.Join(home, ".config/containers/certs.d", host, "ca.crt")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw}), 0o600)); err != nil {
		t.Fatal(err)
	}
	ask := func(u User) error {
		h := &hostTransport{dirs: certificateDirs(u), each: map[string]*http.Transport{}}
		defer h.CloseIdleConnections()
		response, err := (&http.Client{Transport: h}).Get(r.URL + "/v2/")
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	if err := ask(u); err != nil {
		t.Error(err)
	}
	u.UID++
	if err := ask(u); err == nil || !strings.Contains(err.Error(), "it is not ada's to read") {
		t.Errorf("got %v", err)
	}
}

// TestProxy goes by the environment, in a process of its own: it is looked at
// once.
func TestProxy(t *testing.T) {
	if os.Getenv("TEST_PROXY") != "" {
		for _, to := range []string{"https://r.example/v2/", "https://sub.near.example/v2/", "http://plain.example/"} {
			q, err := http.NewRequest(http.MethodGet, to, nil)
			if err != nil {
				t.Fatal(err)
			}
			transport, err := (&hostTransport{each: map[string]*http.Transport{}}).of(q.URL.Host)
			if err != nil {
				t.Fatal(err)
			}
			u, err := transport.Proxy(q)
			fmt.Printf("%s: %v, %v\n", q.URL.Host, u, err)
		}
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestProxy$")
	c.Env = append(os.Environ(), "TEST_PROXY=1", "HTTPS_PROXY=http://proxy.example:3128", "HTTP_PROXY=http://other.example", "NO_PROXY=.near.example,10.0.0.0/8",
		"https_proxy=", "http_proxy=", "no_proxy=")
	out, err := c.CombinedOutput()
	want := "r.example: http://proxy.example:3128, <nil>\nsub.near.example: <nil>, <nil>\nplain.example: http://other.example, <nil>\n"
	if err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("got %v, %s", err, out)
	}
}
