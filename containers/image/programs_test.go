package image

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serveInChild makes the test binary a server: signals concern a process.
const serveInChild = "PLATELAYER_TEST_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serveInChild) != "" {
		os.Exit(Serve(context.Background(), []string{"-listen", "127.0.0.1:0"}, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestServeEndsOnSIGTERM(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	// The race detector sleeps for a second at exit unless told not to.
	cmd.Env = append(os.Environ(), serveInChild+"=1", "GORACE=atexit_sleep_ms=0")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSpace(strings.TrimPrefix(string(line[:n]), "serving on "))
	// A connection that asks nothing must not keep the server.
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begin := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("it took %v to end", d)
	}
}

func TestServe(t *testing.T) {
	server := httptest.NewServer(serveHandler("welcome"))
	defer server.Close()
	host, _ := os.Hostname()
	get := func(path string) string {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if body := get("/"); !strings.HasPrefix(body, "welcome\nhello from "+host+" (") || !strings.HasSuffix(body, ")\nyou are 127.0.0.1\n") {
		t.Errorf("/ answers %q", body)
	}
	if body := get("/healthz"); body != "ok\n" {
		t.Errorf("/healthz answers %q", body)
	}
	var answer answerJSON
	if err := json.Unmarshal([]byte(get("/json")), &answer); err != nil || answer.Hostname != host || answer.Remote != "127.0.0.1" || answer.Path != "/json" {
		t.Errorf("/json answers %+v, %v", answer, err)
	}
}

func TestFetch(t *testing.T) {
	server := httptest.NewServer(serveHandler(""))
	defer server.Close()
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer slow.Close()
	missing := httptest.NewServer(http.NotFoundHandler())
	defer missing.Close()
	for _, test := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"-n", "3", server.URL + "/healthz"}, 0, "ok\nok\nok\n", ""},
		{[]string{strings.TrimPrefix(server.URL, "http://") + "/healthz"}, 0, "ok\n", ""},
		{[]string{missing.URL, server.URL + "/healthz"}, 1, "ok\n", "the server answered 404 Not Found"},
		{[]string{"-timeout", "50ms", slow.URL}, 1, "", "cannot fetch"},
		{[]string{"http://127.0.0.1:1/"}, 1, "", "connection refused"},
		{nil, 2, "", "usage"},
		{[]string{"-n", "0", "x"}, 2, "", "usage"},
		{[]string{"-what"}, 2, "", "not defined"},
	} {
		var stdout, stderr bytes.Buffer
		code := Fetch(t.Context(), test.args, &stdout, &stderr)
		if code != test.code || !strings.HasSuffix(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("%v: code %d\n%s%s", test.args, code, &stdout, &stderr)
		}
	}
}

func TestLookup(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := Lookup(t.Context(), []string{"localhost"}, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), "127.0.0.1\n") {
		t.Errorf("code %d: %s%s", code, &stdout, &stderr)
	}
	stdout.Reset()
	if code := Lookup(t.Context(), []string{"127.0.0.1"}, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), "localhost") {
		t.Errorf("code %d: %s%s", code, &stdout, &stderr)
	}
	if code := Lookup(t.Context(), []string{"-timeout", "2s", "a..b"}, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), "cannot find a..b: no such name") {
		t.Errorf("code %d: %s", code, &stderr)
	}
	if code := Lookup(t.Context(), nil, &stdout, &stderr); code != 2 {
		t.Errorf("no arguments: code %d", code)
	}
}

func TestServeUsage(t *testing.T) {
	for _, test := range []struct {
		args []string
		code int
	}{{[]string{"extra"}, 2}, {[]string{"-x"}, 2}, {[]string{"-h"}, 0}, {[]string{"-listen", "127.0.0.1:x"}, 1}} {
		if code := Serve(t.Context(), test.args, io.Discard, io.Discard); code != test.code {
			t.Errorf("%v: code %d, want %d", test.args, code, test.code)
		}
	}
}
