package image

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// credential is what signs a user in to a registry.
type credential struct {
	user, password string
	refresh        string // an identity token: exchanged for access tokens
	bearer         string // an access token itself
	from           string // the file or program that told it, for messages
}

func (c *credential) empty() bool { return c.user == "" && c.refresh == "" && c.bearer == "" }

// Credentials finds the credentials that a user has given docker or podman. Its
// files are opened and its programs run on the user's behalf, whoever runs this.
type Credentials struct {
	User   User
	Getenv func(string) string

	answers    *helperAnswers
	helperTime time.Duration // 0: the usual
}

// User is on whose behalf the program runs.
type User struct {
	UID, GID int
	Groups   []int
	Name     string
	Home     string // "" when it is not known
}

// files lists where credentials may be, in the order of their precedence
// (docker's documentation; containers-auth.json(5)).
func (c *Credentials) files() []string {
	if file := c.Getenv("REGISTRY_AUTH_FILE"); file != "" {
		return []string{file}
	}
	var all []string
	switch dir := c.Getenv("DOCKER_CONFIG"); {
	case dir != "":
		all = append(all, filepath.Join(dir, "config.json"))
	case c.User.Home != "":
		all = append(all, filepath.Join(c.User.Home, ".docker/config.json"))
	}
	all = append(all, filepath.Join(c.runtimeDir(), "containers/auth.json"), fmt.Sprintf("/run/containers/%d/auth.json", c.User.UID))
	switch dir := c.Getenv("XDG_CONFIG_HOME"); {
	case dir != "":
		all = append(all, filepath.Join(dir, "containers/auth.json"))
	case c.User.Home != "":
		all = append(all, filepath.Join(c.User.Home, ".config/containers/auth.json"))
	}
	return all
}

// runtimeDir is the user's own, which sudo doesn't pass on.
func (c *Credentials) runtimeDir() string {
	if dir := c.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return dir
	}
	return fmt.Sprintf("/run/user/%d", c.User.UID)
}

// authFile is a config.json of docker or an auth.json of podman.
type authFile struct {
	path        string
	Auths       map[string]authEntry `json:"auths"`
	CredHelpers map[string]string    `json:"credHelpers"`
	CredsStore  string               `json:"credsStore"`
}

type authEntry struct {
	Auth          string `json:"auth"` // base64 of user:password
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// find looks for a registry's credentials; nil is none. What could not be
// looked at is told to notice.
func (c *Credentials) find(ctx context.Context, registry, repository string, notice func(string)) *credential {
	for _, path := range c.files() {
		f, err := c.read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			notice(fmt.Sprintf("the credentials in %s are not used: %v", path, err))
			continue
		}
		if found := c.findIn(ctx, f, registry, repository, notice); found != nil && !found.empty() {
			return found
		}
	}
	return nil
}

// read reads a file of credentials. Errors don't show its content: under sudo
// the user may have made it a link to what is not the user's to see.
func (c *Credentials) read(path string) (*authFile, error) {
	text, err := c.User.read(path)
	if err != nil {
		return nil, err
	}
	f := &authFile{path: path}
	if err := json.Unmarshal(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), f); err != nil && len(text) > 0 {
		return nil, errors.New("it is not JSON of the kind that docker login writes")
	}
	return f, nil
}

// read reads a file that the user may read.
func (u *User) read(path string) ([]byte, error) {
	const most = 4 << 20 // bytes
	h, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	info, err := h.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a file")
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != u.UID && info.Mode().Perm()&0o004 == 0 {
		return nil, fmt.Errorf("it is not %s's to read", cmp.Or(u.Name, "the user"))
	}
	text, err := io.ReadAll(io.LimitReader(h, most+1))
	if err != nil {
		return nil, err
	}
	if len(text) > most {
		return nil, errors.New("it is too large")
	}
	return text, nil
}

func (c *Credentials) findIn(ctx context.Context, f *authFile, registry, repository string, notice func(string)) *credential {
	keys := keysOf(registry, repository)
	helper, server := f.CredsStore, serverName(registry)
	for _, key := range keys {
		if h, ok := lookupKey(f.CredHelpers, key); ok {
			helper = h
			if key != registry { // a part of the registry, as podman has them
				server = key
			}
			break
		}
	}
	if helper != "" {
		found, err := c.askOnce(ctx, helper, server)
		if err != nil {
			notice(fmt.Sprintf("docker-credential-%s, which %s names, gives no credentials for %s: %v", shorten(helper), f.path, server, err))
		}
		if found != nil {
			return found
		}
	}
	for _, key := range keys {
		if e, ok := lookupKey(f.Auths, key); ok {
			found, err := e.credential()
			if err != nil {
				notice(fmt.Sprintf("the credentials for %s in %s are not used: %v", key, f.path, err))
				continue
			}
			found.from = f.path
			if !found.empty() {
				return found
			}
		}
	}
	return nil
}

func (e *authEntry) credential() (*credential, error) {
	c := &credential{user: e.Username, password: e.Password, refresh: e.IdentityToken, bearer: e.RegistryToken}
	if e.Auth != "" {
		text, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(e.Auth), "="))
		user, password, found := strings.Cut(string(text), ":")
		if err != nil || !found {
			return nil, errors.New(`their "auth" is not the base64 of user:password`)
		}
		c.user, c.password = user, strings.TrimRight(password, "\x00")
	}
	return c, nil
}

// hubKey is what docker keeps docker.io's credentials under.
const hubKey = "https://index.docker.io/v1/"

// serverName is what credential programs are asked for.
func serverName(registry string) string {
	if registry == dockerHub {
		return hubKey
	}
	return registry
}

// keysOf lists what a repository's credentials may stand under, the most
// specific first (containers-auth.json(5)).
func keysOf(registry, repository string) []string {
	var keys []string
	for path := repository; path != ""; path = path[:max(strings.LastIndexByte(path, '/'), 0)] {
		keys = append(keys, registry+"/"+path)
	}
	return append(keys, registry)
}

// lookupKey finds a key as docker and podman write it: with or without a
// scheme, and with the path of the registry's API.
func lookupKey[T any](all map[string]T, key string) (T, bool) {
	if v, ok := all[key]; ok {
		return v, true
	}
	for k, v := range all {
		if normalKey(k) == key {
			return v, true
		}
	}
	var none T
	return none, false
}

func normalKey(key string) string {
	_, rest, schemed := strings.Cut(key, "://")
	if !schemed {
		rest = key
	}
	host, path, _ := strings.Cut(rest, "/")
	if path = strings.Trim(path, "/"); schemed || path == "v1" || path == "v2" {
		path = "" // docker's form
	}
	switch host = strings.ToLower(host); host {
	case "index.docker.io", "registry.hub.docker.com", hubAddress:
		host = dockerHub
	}
	if path != "" {
		host += "/" + path
	}
	return host
}

// UserOf describes a user by numbers, as far as the machine knows one.
func UserOf(uid, gid int) User {
	u := User{UID: uid, GID: gid, Groups: []int{gid}, Name: os.Getenv("SUDO_USER"), Home: os.Getenv("SUDO_HOME")}
	if uid == os.Getuid() {
		u.Name, u.Home = os.Getenv("USER"), os.Getenv("HOME")
	}
	known, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return u
	}
	u.Name = known.Username
	if uid != os.Getuid() || u.Home == "" {
		u.Home = known.HomeDir
	}
	groups, err := known.GroupIds()
	if err != nil {
		return u
	}
	u.Groups = nil
	for _, text := range groups {
		if g, err := strconv.Atoi(text); err == nil {
			u.Groups = append(u.Groups, g)
		}
	}
	return u
}
