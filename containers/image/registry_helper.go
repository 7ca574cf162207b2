package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const helperTime = 60 * time.Second // it may ask its user

// helperAnswers are what credential programs have said: they may ask the user,
// who is asked once and one thing at a time.
type helperAnswers struct {
	mu    sync.Mutex
	known map[string]*credential
}

func (c *Credentials) askOnce(ctx context.Context, helper, server string) (*credential, error) {
	if c.answers == nil {
		return c.ask(ctx, helper, server)
	}
	c.answers.mu.Lock()
	defer c.answers.mu.Unlock()
	key := helper + " " + server
	if known, ok := c.answers.known[key]; ok {
		return known, nil
	}
	found, err := c.ask(ctx, helper, server)
	if ctx.Err() == nil {
		c.answers.known[key] = found // after a failure none: it would fail again
	}
	return found, err
}

// ask runs a credential program (docker-credential-helpers: "get" with the
// server on its input) as the user whose file names it. Nil is that it knows
// none.
func (c *Credentials) ask(ctx context.Context, helper, server string) (*credential, error) {
	if helper != filepath.Base(helper) || helper == "." || helper == ".." {
		return nil, errors.New("it is not the name of a program")
	}
	path, err := c.lookHelper("docker-credential-" + helper)
	if err != nil {
		return nil, err
	}
	limit := cmp.Or(c.helperTime, helperTime)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "get")
	cmd.Stdin = strings.NewReader(server)
	const most = 1 << 20
	out, errOut := firstBytes{most: most}, firstBytes{most: most}
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Dir = "/"
	cmd.Env = c.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 && c.User.UID != 0 {
		groups := make([]uint32, len(c.User.Groups))
		for i, g := range c.User.Groups {
			groups[i] = uint32(g)
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(c.User.UID), Gid: uint32(c.User.GID), Groups: groups}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) { // an agent that it began may still have its streams
		if strings.Contains(string(out.text), "credentials not found") {
			return nil, nil
		}
		if ctx.Err() == context.DeadlineExceeded {
			return nil, fmt.Errorf("it did not answer within %s", limit)
		}
		text := strings.TrimSpace(string(errOut.text))
		if text == "" && !strings.ContainsAny(string(out.text), "{}") { // no answer, where a secret would be, but what most print their errors as
			text = strings.TrimSpace(string(out.text))
		}
		if text != "" {
			err = fmt.Errorf("%w: %s", err, shorten(text))
		}
		return nil, err
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.text, &answer); err != nil {
		return nil, errors.New("its answer is not JSON")
	}
	found := &credential{user: answer.Username, password: answer.Secret, from: filepath.Base(path)}
	if answer.Username == "<token>" {
		found.user, found.password, found.refresh = "", "", answer.Secret
	}
	if found.empty() {
		return nil, nil
	}
	return found, nil
}

// lookHelper finds a program on the PATH, and where users install programs of
// their own: sudo puts a PATH of its own in the place of theirs.
func (c *Credentials) lookHelper(program string) (string, error) {
	dirs := filepath.SplitList(c.Getenv("PATH"))
	if c.User.Home != "" {
		dirs = append(dirs, filepath.Join(c.User.Home, ".local/bin"), filepath.Join(c.User.Home, "bin"))
	}
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errors.New("there is no such program on the PATH")
}

// environment is the program's, as the user's own session has it.
func (c *Credentials) environment() []string {
	own := map[string]string{"XDG_RUNTIME_DIR": c.runtimeDir()}
	if c.User.Home != "" {
		own["HOME"] = c.User.Home
	}
	if c.User.Name != "" {
		own["USER"], own["LOGNAME"] = c.User.Name, c.User.Name
	}
	if bus := filepath.Join(c.runtimeDir(), "bus"); c.Getenv("DBUS_SESSION_BUS_ADDRESS") == "" {
		if _, err := os.Stat(bus); err == nil {
			own["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=" + bus
		}
	}
	env := slices.DeleteFunc(os.Environ(), func(line string) bool {
		key, _, _ := strings.Cut(line, "=")
		_, ours := own[key]
		return ours || key == "MAIL"
	})
	for key, value := range own {
		env = append(env, key+"="+value)
	}
	return env
}

// firstBytes keeps the beginning of what a program writes.
type firstBytes struct {
	text []byte
	most int
}

func (f *firstBytes) Write(p []byte) (int, error) {
	f.text = append(f.text, p[:min(len(p), f.most-len(f.text))]...)
	return len(p), nil
}
