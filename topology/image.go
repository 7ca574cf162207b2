package topology

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NoHealthcheck as a healthcheck's only word says that there is none.
const NoHealthcheck = "NONE"

// Pull policies (compose's pull_policy).
const (
	PullMissing = "missing" // when the store has none
	PullAlways  = "always"  // also to see whether the name means another one now
	PullNever   = "never"
	PullDaily   = "daily"
	PullWeekly  = "weekly"
	PullEvery   = "every_" // and a duration
)

// imageName is what an image may be called (the grammar of
// distribution/reference): a registry, a path, a tag, a digest.
var imageName = regexp.MustCompile(`^([a-zA-Z0-9.-]+(:[0-9]+)?/|\[[0-9a-fA-F:.]+\](:[0-9]+)?/)?[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*` +
	`(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$`)

// platformName is what image.ParsePlatform takes, in full: Go's architectures, and
// their other names.
var platformName = regexp.MustCompile(`^linux/(386|amd64|arm|arm64|loong64|mips|mips64|mips64le|mipsle|ppc64|ppc64le|riscv64|s390x|i386|x86_64|x86-64|aarch64|armhf|armel)(/[a-z0-9.]+)?$`)

func (l *loader) image(s *stationDraft) {
	if p := s.body.get("pull_policy"); p != nil {
		s.out.PullPolicy = l.pullPolicy(p)
	}
	if p := s.body.get("platform"); p != nil {
		if s.out.Platform = p.text; !platformName.MatchString(p.text) {
			l.spoil(p, fmt.Sprintf("%s is not a Linux platform", quoted(p.text)), "write linux/amd64, linux/arm64, linux/arm/v7 ...")
		}
	}
	n := s.body.get("image")
	switch {
	case n == nil:
	case s.body.get("rootfs") != nil:
		l.spoil(n, "image and rootfs are both set", "a station's programs come from one of them")
	case imageName.MatchString(n.text) && !strings.HasPrefix(n.text, "sha256:"):
		s.out.Image = n.text
	default:
		hint := "write [REGISTRY/]NAME[:TAG][@DIGEST], such as nginx:1.25 or registry.example:5000/shop/lb"
		if strings.ToLower(n.text) != n.text {
			hint = "names are lower-case; only tags may have capitals"
		}
		if strings.HasPrefix(n.text, "sha256:") {
			hint = "a digest follows a name, NAME@sha256:...; platelayer image tag gives an image one"
		}
		l.spoil(n, fmt.Sprintf("%s is not an image's name", quoted(n.text)), hint)
	}
}

func (l *loader) pullPolicy(n *node) string {
	switch n.text {
	case PullMissing, "if_not_present":
		return ""
	case PullAlways, PullNever, PullDaily, PullWeekly:
		return n.text
	}
	if every, ok := strings.CutPrefix(n.text, PullEvery); ok {
		if _, err := PullAge(n.text); err == nil && every != "" {
			return n.text
		}
	}
	hint := "always, missing, never, daily, weekly, or every_ and a duration, such as every_12h"
	if n.text == "build" {
		hint = "images are built by another tool; " + hint
	}
	l.spoil(n, fmt.Sprintf("%s is not a pull policy", quoted(n.text)), hint)
	return ""
}

// PullAge is how old what a policy takes for the newest may be.
func PullAge(policy string) (time.Duration, error) {
	const day = 24 * time.Hour
	switch policy {
	case PullAlways:
		return 0, nil
	case PullDaily:
		return day, nil
	case PullWeekly:
		return 7 * day, nil
	}
	text := strings.TrimPrefix(policy, PullEvery)
	var sum time.Duration
	for _, unit := range []struct {
		name string
		is   time.Duration
	}{{"w", 7 * day}, {"d", day}} {
		if before, after, ok := strings.Cut(text, unit.name); ok {
			n, err := strconv.Atoi(before)
			if err != nil || n < 0 || n > 10000 {
				return 0, fmt.Errorf("%q is not a duration", text)
			}
			sum, text = sum+time.Duration(n)*unit.is, after
		}
	}
	if text == "" {
		return sum, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration", text)
	}
	return sum + d, nil
}

// ImageConfig is what an image says of the containers that are made of it (OCI
// image config.md).
type ImageConfig struct {
	Digest      string
	Entrypoint  []string
	Cmd         []string
	Env         []string // NAME=value
	User        string
	WorkingDir  string
	StopSignal  string
	Volumes     []string // paths
	Exposed     []string // "80/tcp"
	Labels      map[string]string
	Healthcheck *Healthcheck // with zeros for what it doesn't say
}

// UnfitImage is an image that a station can't run on as it is.
type UnfitImage struct{ Station, Image, Problem, Hint string }

func (e *UnfitImage) Error() string {
	return fmt.Sprintf("station %q can't run on the image %s: %s", e.Station, e.Image, e.Problem)
}

// WithImage gives a station what its image says and its own keys don't: as
// compose has it, an entrypoint of its own leaves the image's command out, too.
func (s *Station) WithImage(c *ImageConfig) error {
	s.Digest = c.Digest
	s.Exposed = slices.Sorted(slices.Values(c.Exposed))
	unfit := func(problem, hint string) error { return &UnfitImage{s.ID(), s.Image, problem, hint} }
	if c.hasZero() {
		return unfit("its configuration has a zero byte, which no program can be given", "have it built anew")
	}
	if s.Entrypoint == nil {
		s.Entrypoint = slices.Clone(c.Entrypoint)
		if s.Command == nil {
			s.Command = slices.Clone(c.Cmd)
		}
	}
	if slices.Equal(s.Entrypoint, []string{""}) { // docker's way to say that there is none
		s.Entrypoint = nil
	}
	if len(s.Entrypoint)+len(s.Command) == 0 {
		return unfit("it says no command, and neither does the station", "add command: [PROGRAM, ARGUMENT, ...]")
	}
	s.Environment = mergeEnvironment(c.Env, s.Environment)
	s.User = cmp.Or(s.User, c.User)
	if s.WorkingDir == "" && c.WorkingDir != "" {
		s.WorkingDir = path.Join("/", c.WorkingDir)
	}
	if s.StopSignal == "" && c.StopSignal != "" && !s.Systemd {
		var ok bool
		if s.StopSignal, ok = signalName(c.StopSignal); !ok {
			return unfit(fmt.Sprintf("its stop signal %s is none", quoted(c.StopSignal)), "add stop_signal: SIGTERM")
		}
	}
	s.StopSignal = cmp.Or(s.StopSignal, defaultStopSignal(s))
	s.Healthcheck = mergeHealthcheck(c.Healthcheck, s.Healthcheck)
	if h := s.Healthcheck; h != nil && (min(h.Interval, h.Timeout, h.StartInterval) < time.Millisecond || h.StartPeriod < 0 || h.Retries < 0) {
		return unfit(fmt.Sprintf("its healthcheck has an interval of %s, one of %s at the start, a timeout of %s, a start period of %s and %d retries", h.Interval, h.StartInterval, h.Timeout, h.StartPeriod, h.Retries),
			"set what is too small in healthcheck, or disable: true")
	}
	if len(c.Labels) > 0 {
		labels := maps.Clone(c.Labels)
		maps.Copy(labels, s.Labels)
		s.Labels = labels
	}
	const mostVolumes = 256 // each is a mount
	if len(c.Volumes) > mostVolumes {
		return unfit(fmt.Sprintf("it has %d volumes; %d are taken", len(c.Volumes), mostVolumes), "have it built anew")
	}
	for _, v := range slices.Sorted(slices.Values(c.Volumes)) {
		if err := s.imageVolume(v); err != "" {
			return unfit(err, "mount something there: volumes: [...]")
		}
	}
	return nil
}

// CheckHealth finds a station that waits for the health of another, whose image,
// as it has shown, brings no healthcheck.
func CheckHealth(which []*Station) error {
	byID := map[string]*Station{}
	for _, s := range which {
		byID[s.ID()] = s
	}
	var errs []error
	for _, s := range which {
		for _, d := range s.DependsOn {
			if on := byID[d.Station]; d.Condition == Healthy && on != nil && on.Digest != "" && on.Healthcheck == nil {
				errs = append(errs, &UnfitImage{on.ID(), on.Image, fmt.Sprintf("it has no healthcheck, and station %q waits for its health", s.ID()),
					"give it a healthcheck, or write condition: " + Started})
			}
		}
	}
	return errors.Join(errs...)
}

// hasZero tells whether a word that a program is started with can't be handed over.
func (c *ImageConfig) hasZero() bool {
	all := slices.Concat(c.Entrypoint, c.Cmd, c.Env, []string{c.User, c.WorkingDir})
	if c.Healthcheck != nil {
		all = append(all, c.Healthcheck.Test...)
	}
	return slices.ContainsFunc(all, func(word string) bool { return strings.Contains(word, "\x00") })
}

// mergeEnvironment has the later of two values; the result is sorted by name.
// What has no value is not there, whatever is said of it before.
func mergeEnvironment(lists ...[]string) []string {
	values := map[string]string{}
	for _, list := range lists {
		for _, v := range list {
			name, _, ok := strings.Cut(v, "=")
			switch {
			case !ok:
				delete(values, name)
			case name != "":
				values[name] = v
			}
		}
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		all = append(all, values[name])
	}
	return all
}

func mergeHealthcheck(image, own *Healthcheck) *Healthcheck {
	h := Healthcheck{}
	if image != nil {
		h = *image
	}
	if own != nil {
		if len(own.Test) > 0 {
			h.Test = own.Test
		}
		for _, d := range []struct{ to, from *time.Duration }{
			{&h.Interval, &own.Interval}, {&h.Timeout, &own.Timeout}, {&h.StartPeriod, &own.StartPeriod}, {&h.StartInterval, &own.StartInterval},
		} {
			*d.to = cmp.Or(*d.from, *d.to)
		}
		h.Retries = cmp.Or(own.Retries, h.Retries)
		h.RestartUnhealthy = own.RestartUnhealthy
	}
	if len(h.Test) == 0 || h.Test[0] == NoHealthcheck {
		return nil
	}
	h.complete()
	return &h
}

// imageVolume adds an anonymous volume, filled from the image, unless something
// is mounted there.
func (s *Station) imageVolume(said string) (problem string) {
	clean := volumePath(said)
	if clean == "" {
		return fmt.Sprintf("its volume %s is not a path in it", quoted(said))
	}
	taken := slices.ContainsFunc(s.Volumes, func(v Volume) bool { return v.Target == clean }) ||
		slices.ContainsFunc(s.Tmpfs, func(t Tmpfs) bool { return t.Target == clean })
	if !taken {
		s.Volumes = append(s.Volumes, Volume{Target: clean})
	}
	return ""
}

// volumePath gives a path below the root in its shortest form, as Docker has it;
// "" is none, or one that nothing can be mounted on.
func volumePath(p string) string {
	if p = path.Join("/", p); p == "/" || strings.ContainsRune(p, 0) {
		return ""
	}
	return p
}
