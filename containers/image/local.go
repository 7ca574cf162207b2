package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Local says which Docker and Podman of the machine are asked for images, and on
// whose behalf.
type Local struct {
	Sockets  []string // unix sockets with Docker's API, which Podman's services have too
	Podman   string   // the program, "" for none
	UID, GID int      // the user's, for whom the program runs
	Home     string
	Notice   func(text string) // an engine that is there and fails; may be nil

	host *dockerHost // nil where $DOCKER_HOST is not set
}

// dockerHost is $DOCKER_HOST, of which it is told once that it can't be asked.
type dockerHost struct {
	value, socket string // "" is none
	tell          sync.Once
}

// LocalEngines gives those of a user and of root, by getenv's DOCKER_HOST and at
// their usual places. It asks nobody.
func LocalEngines(uid, gid int, home string, getenv func(string) string) Local {
	l := Local{UID: uid, GID: gid, Home: home}
	if host := getenv("DOCKER_HOST"); host != "" {
		l.host = &dockerHost{value: host}
		if path, ok := strings.CutPrefix(host, "unix://"); ok {
			l.host.socket, l.Sockets = path, append(l.Sockets, path)
		}
	}
	l.Sockets = append(l.Sockets, "/run/docker.sock")
	if uid != 0 {
		l.Sockets = append(l.Sockets, fmt.Sprintf("/run/user/%d/docker.sock", uid))
	}
	l.Sockets = append(l.Sockets, "/run/podman/podman.sock")
	if path, err := exec.LookPath("podman"); err == nil {
		l.Podman = path
	}
	return l
}

// fromLocal brings an image from the machine's own Docker or Podman, and tells
// whose it is. One that none of them has is an UnknownError.
func fromLocal(ctx context.Context, s *Store, ref Reference, l Local, o LoadOptions) (*Image, string, error) {
	if l.Notice == nil {
		l.Notice = func(string) {}
	}
	if h := l.host; h != nil && !l.trusts(h.socket) {
		h.tell.Do(func() {
			l.Notice(fmt.Sprintf("DOCKER_HOST=%s is not asked for images: it is not a unix socket that is there and is root's or yours", shorten(theirs(h.value))))
		})
	}
	for _, name := range localNames(ref) {
		for _, socket := range l.Sockets {
			if !l.trusts(socket) {
				continue
			}
			i, err := fromSocket(ctx, s, socket, name, ref, o)
			if i != nil || ctx.Err() != nil {
				return i, socket, err
			}
			if err != nil {
				l.Notice(fmt.Sprintf("cannot take %s from %s: %v", ref.Short(), socket, err))
			}
		}
		if l.Podman == "" || ref.Digest != "" {
			continue
		}
		i, err := l.fromPodman(ctx, s, name, ref, o)
		if i != nil || ctx.Err() != nil {
			return i, "podman", err
		}
		if err != nil {
			l.Notice(fmt.Sprintf("cannot take %s from podman: %v", ref.Short(), err))
		}
	}
	return nil, "", &UnknownError{ref.Short()}
}

// localNames: Podman calls what it built itself, and loaded under a short name,
// localhost's.
func localNames(ref Reference) []string {
	names := []string{ref.String()}
	if ref.Registry == dockerHub && ref.Digest == "" {
		names = append(names, "localhost/"+ref.Short())
	}
	return names
}

// trusts: whoever owns the socket says what an image is.
func (l *Local) trusts(socket string) bool {
	var st unix.Stat_t
	return unix.Stat(socket, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK && (st.Uid == 0 || int(st.Uid) == l.UID)
}

// fromSocket asks one; nil without an error: it doesn't have the image, or isn't
// there (Docker Engine API, ImageInspect and ImageGet).
func fromSocket(ctx context.Context, s *Store, socket, name string, ref Reference, o LoadOptions) (*Image, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	id, err := inspectLocal(ctx, client, name)
	if err != nil || id == "" {
		return nil, err
	}
	// A digest is the manifest's. Where Docker keeps none, no archive can show it.
	if ref.Digest != "" && id != ref.Digest {
		return nil, nil
	}
	body, err := get(ctx, client, "/images/"+name+"/get")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	a, err := s.streamedArchive(ctx, body)
	if err != nil {
		return nil, err
	}
	return loadOne(ctx, s, a, ref, o)
}

func inspectLocal(ctx context.Context, client *http.Client, name string) (id string, err error) {
	const patience = 10 * time.Second // an engine that hangs must not
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := get(ctx, client, "/images/"+name+"/json")
	switch {
	case errors.Is(err, errNotThere), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return "", nil
	case err != nil:
		return "", err
	}
	defer body.Close()
	var answer struct{ ID string }
	if err := json.NewDecoder(io.LimitReader(body, maxDocument)).Decode(&answer); err != nil {
		return "", fmt.Errorf("it answers what is no image: %w", err)
	}
	return answer.ID, nil
}

var errNotThere = errors.New("not there")

func get(ctx context.Context, client *http.Client, path string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNotFound {
		return nil, errNotThere
	}
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 300))
	return nil, fmt.Errorf("it answers %s: %s", answer.Status, theirs(string(text)))
}

// loadOne loads an archive that holds one image under the name that was asked for.
func loadOne(ctx context.Context, s *Store, a archive, ref Reference, o LoadOptions) (*Image, error) {
	o.Name, o.Only = ref.String(), ref.Digest
	loaded, err := s.loadArchive(ctx, a, o)
	if err != nil {
		return nil, err
	}
	return loaded[0].Image, nil
}

// fromPodman runs the program for the user: nobody else reads the store of a
// Podman without root.
func (l *Local) fromPodman(ctx context.Context, s *Store, name string, ref Reference, o LoadOptions) (*Image, error) {
	said := &firstBytes{most: 1024}
	exists := l.podman(ctx, "image", "exists", name)
	exists.Stderr = said
	if err := exists.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 1 {
			return nil, nil
		}
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.text))
	}
	c := l.podman(ctx, "image", "save", "--quiet", name)
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.Stderr = said
	if err := c.Start(); err != nil {
		return nil, err
	}
	a, err := s.streamedArchive(ctx, out)
	if err != nil {
		c.Process.Kill()
	}
	if waitErr := c.Wait(); waitErr != nil && len(said.text) > 0 {
		err = fmt.Errorf("%w: %s", waitErr, bytes.TrimSpace(said.text)) // why the archive is cut, if it is
	} else if err == nil {
		err = waitErr
	}
	if err != nil {
		if a != nil {
			a.close()
		}
		return nil, err
	}
	return loadOne(ctx, s, a, ref, o)
}

func (l *Local) podman(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, l.Podman, args...)
	c.Dir = "/"
	c.Env = []string{"HOME=" + l.Home, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if dir := fmt.Sprintf("/run/user/%d", l.UID); l.UID != 0 {
		if _, err := os.Stat(dir); err == nil {
			c.Env = append(c.Env, "XDG_RUNTIME_DIR="+dir)
		}
	}
	if l.UID != os.Getuid() {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(l.UID), Gid: uint32(l.GID)}}
	}
	return c
}
