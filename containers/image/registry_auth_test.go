package image

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseChallenges(t *testing.T) {
	for _, test := range []struct {
		headers []string
		want    string
	}{
		{[]string{`Bearer realm="https://a.example/token",service="a b",scope="repository:x:pull,push"`}, `bearer realm=https://a.example/token scope=repository:x:pull,push service=a b`},
		{[]string{`Basic realm="a \"quoted\" one", charset=UTF-8`}, `basic charset=UTF-8 realm=a "quoted" one`},
		{[]string{`Negotiate, Basic realm=x`, `BEARER Realm = "y"`}, `negotiate; basic realm=x; bearer realm=y`},
		{[]string{`Negotiate YWJj==`}, `negotiate yWJj==`},
		{[]string{``, `,,`, `"`, `Bearer realm="open`}, `bearer realm=open`},
		{nil, ``},
	} {
		var got []string
		for _, c := range parseChallenges(test.headers) {
			parts := []string{c.scheme}
			var keys []string
			for k := range c.params {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			for _, k := range keys {
				parts = append(parts, k+"="+c.params[k])
			}
			got = append(got, strings.Join(parts, " "))
		}
		if text := strings.Join(got, "; "); !strings.EqualFold(text, test.want) {
			t.Errorf("%q: got %s, want %s", test.headers, text, test.want)
		}
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://a.example/token",service=x, Basic realm="y\"`)
	f.Fuzz(func(t *testing.T, header string) {
		for _, c := range parseChallenges([]string{header}) {
			if c.scheme == "" || c.scheme != token(c.scheme) {
				t.Errorf("the scheme %q", c.scheme)
			}
		}
	})
}

// asUser gives credentials as docker login writes them.
func asUser(t *testing.T, files map[string]string) Credentials {
	t.Helper()
	home := t.TempDir()
	for name, text := range files {
		path := filepath.Join(home, name)
		mode := os.FileMode(0o600)
		if strings.HasPrefix(filepath.Base(path), "docker-credential-") {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{"XDG_RUNTIME_DIR": filepath.Join(home, "run"), "PATH": "/usr/bin:/bin"}
	return Credentials{User: User{UID: os.Getuid(), GID: os.Getgid(), Home: home, Name: "ada"}, Getenv: func(key string) string { return env[key] }}
}

func basicAuth(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

func TestCredentials(t *testing.T) {
	const docker, podman = ".docker/config.json", "run/containers/auth.json"
	auths := func(registry, user string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, registry, basicAuth(user, "secret"))
	}
	const helper = "#!/bin/sh\nread server\n[ \"$1\" = get ] && [ \"$HOME\" ] && printf '{\"ServerURL\":\"x\",\"Username\":\"%s\",\"Secret\":\"of %s\"}' \"$USER\" \"$server\"\n"
	for _, test := range []struct {
		name   string
		files  map[string]string
		ref    string
		want   string
		notice string
	}{
		{"none", nil, "r.example/a", "", ""},
		{"docker", map[string]string{docker: auths("r.example:5000", "d")}, "r.example:5000/a", "d secret", ""},
		{"another port", map[string]string{docker: auths("r.example:5000", "d")}, "r.example/a", "", ""},
		{"docker's old form", map[string]string{docker: auths("https://r.example/v1/", "d")}, "r.example/a", "d secret", ""},
		{"as it was typed", map[string]string{docker: auths("R.Example:5000", "d")}, "r.example:5000/a", "d secret", ""},
		{"with a scheme, as it was typed", map[string]string{docker: auths("HTTPS://R.Example/v2/", "d")}, "r.example/a", "d secret", ""},
		{"hub", map[string]string{docker: auths("https://index.docker.io/v1/", "d")}, "nginx", "d secret", ""},
		{"hub by podman", map[string]string{podman: auths("docker.io", "p")}, "nginx", "p secret", ""},
		{"part of a registry", map[string]string{podman: auths("r.example/team", "p")}, "r.example/team/a", "p secret", ""},
		{"another part", map[string]string{podman: auths("r.example/team", "p")}, "r.example/teams/a", "", ""},
		{"docker's before podman's", map[string]string{docker: auths("r.example", "d"), podman: auths("r.example", "p")}, "r.example/a", "d secret", ""},
		{"only podman's has it", map[string]string{docker: auths("q.example", "d"), podman: auths("r.example", "p")}, "r.example/a", "p secret", ""},
		{"podman's own folder", map[string]string{".config/containers/auth.json": auths("r.example", "p")}, "r.example/a", "p secret", ""},
		{"written out", map[string]string{docker: `{"auths":{"r.example":{"username":"d","password":"s"}}}`}, "r.example/a", "d s", ""},
		{"token", map[string]string{docker: `{"auths":{"r.example":{"identitytoken":"i"}}}`}, "r.example/a", "refresh i", ""},
		{"empty entry", map[string]string{docker: `{"auths":{"r.example":{}}}`}, "r.example/a", "", ""},
		{"no JSON", map[string]string{docker: `root:secret`}, "r.example/a", "", "it is not JSON of the kind that docker login writes"},
		{"no base64", map[string]string{docker: `{"auths":{"r.example":{"auth":"%%"}}}`}, "r.example/a", "", "not the base64 of user:password"},
		{"store", map[string]string{docker: `{"credsStore":"x"}`, "bin/docker-credential-x": helper}, "r.example/a", "ada of r.example", ""},
		{"store of the hub", map[string]string{docker: `{"credsStore":"x"}`, "bin/docker-credential-x": helper}, "nginx", "ada of https://index.docker.io/v1/", ""},
		{"helper", map[string]string{docker: `{"credsStore":"y","credHelpers":{"r.example":"x"}}`, "bin/docker-credential-x": helper}, "r.example/a", "ada of r.example", ""},
		{"helper of another", map[string]string{docker: `{"credHelpers":{"q.example":"x"}}`, "bin/docker-credential-x": helper}, "r.example/a", "", ""},
		{"helper with a token", map[string]string{docker: `{"credsStore":"x"}`,
			"bin/docker-credential-x": "#!/bin/sh\necho '{\"Username\":\"<token>\",\"Secret\":\"i\"}'\n"}, "r.example/a", "refresh i", ""},
		{"helper that knows none", map[string]string{docker: `{"credsStore":"x"}`,
			"bin/docker-credential-x": "#!/bin/sh\necho 'credentials not found in native keychain'\nexit 1\n"}, "r.example/a", "", ""},
		{"helper that fails", map[string]string{docker: `{"credsStore":"x","auths":{"r.example":{"auth":"` + basicAuth("d", "s") + `"}}}`,
			"bin/docker-credential-x": "#!/bin/sh\necho secret\necho locked >&2\nexit 3\n"}, "r.example/a", "d s", "gives no credentials for r.example: exit status 3: locked"},
		{"helper that is not there", map[string]string{docker: `{"credsStore":"x"}`}, "r.example/a", "", "there is no such program"},
		{"helper elsewhere", map[string]string{docker: `{"credsStore":"../../x"}`}, "r.example/a", "", "not the name of a program"},
	} {
		ref, err := ParseReference(test.ref)
		if err != nil {
			t.Fatal(err)
		}
		credentials := asUser(t, test.files)
		var notices, got string
		found := credentials.find(t.Context(), ref.Registry, ref.Repository, func(text string) { notices += text })
		switch {
		case found == nil:
		case found.refresh != "":
			got = "refresh " + found.refresh
		default:
			got = found.user + " " + found.password
		}
		if got != test.want || !strings.Contains(notices, test.notice) || test.notice == "" && notices != "" {
			t.Errorf("%s: got %q, want %q; notices %s", test.name, got, test.want, notices)
		}
		if strings.Contains(notices, "secret") {
			t.Errorf("%s: a secret is told: %s", test.name, notices)
		}
	}
}

// TestCredentialsOfAnother runs a user's program as the user, and doesn't read
// what is not the user's.
func TestCredentialsOfAnother(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it is about another user")
	}
	const uid, gid = 4711, 4712
	c := asUser(t, map[string]string{".docker/config.json": `{"credsStore":"x"}`,
		"bin/docker-credential-x": "#!/bin/sh\nprintf '{\"Username\":\"%s\",\"Secret\":\"%s\"}' \"$(id -u):$(id -g)\" \"$(id -G)\"\n"})
	c.User.UID, c.User.GID, c.User.Groups = uid, gid, []int{4713}
	config := filepath.Join(c.User.Home, ".docker/config.json")
	var notices string
	note := func(text string) { notices += text }
	for dir := c.User.Home; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if found := c.find(t.Context(), "r.example", "a", note); found != nil || !strings.Contains(notices, "it is not ada's to read") {
		t.Errorf("got %v; %s", found, notices)
	}
	if err := os.Chown(config, uid, gid); err != nil {
		t.Fatal(err)
	}
	found := c.find(t.Context(), "r.example", "a", note)
	if found == nil || found.user != "4711:4712" || found.password != "4712 4713" {
		t.Errorf("got %+v; %s", found, notices)
	}
}

// TestCredentialsTakeTheirTime ends a program that doesn't answer, with what it
// has begun, and waits for no agent that it leaves behind.
func TestCredentialsTakeTheirTime(t *testing.T) {
	c := asUser(t, map[string]string{
		"bin/docker-credential-slow":  "#!/bin/sh\nsleep 1000 &\necho $! >$HOME/child\nwait\n",
		"bin/docker-credential-agent": "#!/bin/sh\nsleep 1000 &\necho $! >$HOME/agent\necho '{\"Username\":\"ada\",\"Secret\":\"s\"}'\n"})
	sleeper := func(name string) int {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(c.User.Home, name))
		pid, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
		if err = errors.Join(err, convErr); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	if found, err := c.ask(t.Context(), "agent", "r.example"); err != nil || found.user != "ada" {
		t.Errorf("got %+v, %v", found, err)
	}
	if err := syscall.Kill(sleeper("agent"), syscall.SIGKILL); err != nil {
		t.Errorf("the agent is gone: %v", err)
	}
	c.helperTime = time.Second
	if found, err := c.ask(t.Context(), "slow", "r.example"); err == nil || !strings.Contains(err.Error(), "did not answer within 1s") {
		t.Errorf("got %+v, %v", found, err)
	}
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", sleeper("child")))
	if err == nil && !strings.Contains(string(state), ") Z ") {
		t.Errorf("what it began still runs: %s", state)
	}
}

// guard makes a registry ask for what a check wants in Authorization.
func guard(r *testRegistry, challenge string, good func(header string) bool) {
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		if good(q.Header.Get("Authorization")) {
			return false
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return true
	})
}

func TestPullBasic(t *testing.T) {
	r := newTestRegistry(t)
	r.offer("a", "latest", bigImage(t, 1))
	guard(r, `Basic realm="here"`, func(header string) bool { return header == "Basic "+basicAuth("ada", "right") })
	for password, problem := range map[string]string{"right": "", "wrong": "answers 401", "": "answers 401"} {
		files := map[string]string{}
		if password != "" {
			files[".docker/config.json"] = fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.host(), basicAuth("ada", password))
		}
		c := newTestClient(t, RegistryOptions{PlainHTTP: true, Credentials: asUser(t, files)})
		_, err := c.pull(t, newStore(t), r.host()+"/a")
		if (err == nil) != (problem == "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("password %q: got %v", password, err)
		}
		var denied *RegistryError
		if errors.As(err, &denied) && (denied.Account != r.host() || (denied.Credentials == "") != (password == "")) {
			t.Errorf("password %q: got %+v", password, denied)
		}
	}
}

// tokens is a token server: it gives those who sign in rightly tokens that are
// good for some requests.
type tokens struct {
	*httptest.Server
	given    atomic.Int64
	expiring bool // each token is good for three requests
	left     atomic.Int64
	log      []string
}

func newTokens(t *testing.T) *tokens {
	s := &tokens{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		q.ParseForm()
		user, password, _ := q.BasicAuth()
		s.log = append(s.log, strings.TrimSpace(fmt.Sprint(q.Method, " ", user, " ", q.Form.Get("service"), " ", strings.Join(q.Form["scope"], "+"), " ", q.Form.Get("refresh_token"))))
		if password == "wrong" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		s.left.Store(3)
		json.NewEncoder(w).Encode(map[string]any{"token": fmt.Sprintf("t%d", s.given.Add(1)), "expires_in": 300})
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *tokens) good(header string) bool {
	if header != fmt.Sprintf("Bearer t%d", s.given.Load()) || s.given.Load() == 0 {
		return false
	}
	return !s.expiring || s.left.Add(-1) >= 0
}

func TestPullBearer(t *testing.T) {
	for _, test := range []struct {
		name, entry string
		expiring    bool
		want        []string
		problem     string
	}{
		{"anonymous", `{}`, false, []string{"GET  here repository:shop/web:pull"}, ""},
		{"password", `{"auth":"` + basicAuth("ada", "right") + `"}`, false, []string{"GET ada here repository:shop/web:pull"}, ""},
		{"identity", `{"identitytoken":"i"}`, false, []string{"POST  here repository:shop/web:pull i"}, ""},
		{"refused", `{"auth":"` + basicAuth("ada", "wrong") + `"}`, false, []string{"GET ada here repository:shop/web:pull"}, "answers 401 (Unauthorized) when asked for the sign-in at 127.0.0.1"},
		{"expiring", `{}`, true, []string{"GET  here repository:shop/web:pull", "GET  here repository:shop/web:pull"}, ""},
	} {
		r, s := newTestRegistry(t), newTokens(t)
		r.offer("shop/web", "latest", bigImage(t, 1))
		s.expiring = test.expiring
		guard(r, fmt.Sprintf(`Bearer realm="%s/token",service="here",scope="repository:shop/web:pull"`, s.URL), s.good)
		c := newTestClient(t, RegistryOptions{PlainHTTP: true, Credentials: asUser(t, map[string]string{
			".docker/config.json": fmt.Sprintf(`{"auths":{%q:%s}}`, r.host(), test.entry)})})
		_, err := c.pull(t, newStore(t), r.host()+"/shop/web")
		if (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: got %v", test.name, err)
		}
		if d := cmp.Diff(test.want, s.log); d != "" {
			t.Errorf("%s: token server (-want +got):\n%s", test.name, d)
		}
	}
}

// TestRealms wants tokens from https only, and no identity token to go where
// the token server sends it.
func TestRealms(t *testing.T) {
	r := newTestRegistry(t)
	for _, realm := range []string{"http://127.0.0.1:1/token", "file:///etc/passwd", "", "//"} {
		s := &site{scheme: "https", host: r.host(), account: r.host(), repository: "a"}
		c := newTestClient(t, RegistryOptions{})
		_, err := c.authorization(t.Context(), s, nil, "", []string{fmt.Sprintf("Bearer realm=%q", realm)})
		if err == nil || !strings.Contains(err.Error(), "which is no https address") {
			t.Errorf("%q: got %v", realm, err)
		}
	}
	other := newTokens(t)
	guard(r, fmt.Sprintf(`Bearer realm="%s/token"`, r.URL), func(string) bool { return false })
	deny := r.hook
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path == "/token" {
			http.Redirect(w, q, other.URL, http.StatusTemporaryRedirect)
			return true
		}
		return deny(w, q)
	})
	c := newTestClient(t, RegistryOptions{PlainHTTP: true, Credentials: asUser(t, map[string]string{
		".docker/config.json": fmt.Sprintf(`{"auths":{%q:{"identitytoken":"i"}}}`, r.host())})})
	if _, err := c.pull(t, newStore(t), r.host()+"/a"); err == nil || len(other.log) > 0 {
		t.Errorf("got %v; asked %q", err, other.log)
	}
}

// TestRedirects has blobs on another host, which is told no secret.
func TestRedirects(t *testing.T) {
	r, m := newTestRegistry(t), bigImage(t, 1)
	r.offer("a", "latest", m)
	var leaked atomic.Int64
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Authorization") != "" || q.Header.Get("Referer") != "" {
			leaked.Add(1)
		}
		for h, b := range m.blobs {
			if strings.HasSuffix(q.URL.Path, h.Hex) {
				http.ServeContent(w, q, "", time.Time{}, strings.NewReader(string(b)))
			}
		}
	}))
	defer store.Close()
	guard(r, `Basic realm="here"`, func(header string) bool { return header == "Basic "+basicAuth("ada", "right") })
	deny := r.hook
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		if deny(w, q) {
			return true
		}
		if _, digest, found := strings.Cut(q.URL.Path, "/blobs/sha256:"); found {
			// Another port of the same host is another host.
			http.Redirect(w, q, store.URL+"/x/"+digest+"?signed", http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	c := newTestClient(t, RegistryOptions{PlainHTTP: true, Credentials: asUser(t, map[string]string{
		".docker/config.json": fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.host(), basicAuth("ada", "right"))})})
	if _, err := c.pull(t, newStore(t), r.host()+"/a"); err != nil {
		t.Error(err)
	}
	if leaked.Load() > 0 {
		t.Error("another host was told what is the registry's")
	}
	for _, to := range []string{"ftp://127.0.0.1/x", r.URL + "/v2/a/blobs/again"} {
		r.on(func(w http.ResponseWriter, q *http.Request) bool {
			http.Redirect(w, q, to, http.StatusFound)
			return true
		})
		if _, err := c.pull(t, newStore(t), r.host()+"/a"); err == nil || !strings.Contains(err.Error(), "redirects") {
			t.Errorf("%s: got %v", to, err)
		}
	}
}

// TestRedirectedChallenge has a registry send for blobs to a host that wants to be
// signed in to itself: it learns no password of the registry's.
func TestRedirectedChallenge(t *testing.T) {
	r, m, s := newTestRegistry(t), bigImage(t, 1), newTokens(t)
	r.offer("a", "latest", m)
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token"`, s.URL))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer thief.Close()
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/blobs/") {
			return false
		}
		http.Redirect(w, q, thief.URL+q.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	c := newTestClient(t, RegistryOptions{PlainHTTP: true, Credentials: asUser(t, map[string]string{
		".docker/config.json": fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.host(), basicAuth("ada", "right"))})})
	_, err := c.pull(t, newStore(t), r.host()+"/a")
	if err == nil || !strings.Contains(err.Error(), "answers 401") || len(s.log) > 0 {
		t.Errorf("got %v; the other host's token server was asked %q", err, s.log)
	}
}
