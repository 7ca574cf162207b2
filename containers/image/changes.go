package image

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// ChangeError is a change of an image's configuration that can't be understood.
type ChangeError struct{ Change, Problem string }

func (e *ChangeError) Error() string {
	return fmt.Sprintf("the change %q: %s", shorten(e.Change), e.Problem)
}

// changed applies Dockerfile instructions that change a configuration, those
// that `docker import -c` takes.
func changed(c v1.Config, changes []string) (v1.Config, error) {
	for _, text := range changes {
		word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
		if err := change(&c, strings.ToUpper(word), strings.TrimSpace(rest)); err != nil {
			return c, &ChangeError{text, err.Error()}
		}
	}
	return c, nil
}

func change(c *v1.Config, word, rest string) (err error) {
	if rest == "" {
		return fmt.Errorf("%s needs a value", word)
	}
	switch word {
	case "CMD":
		c.Cmd, err = commandOf(rest)
	case "ENTRYPOINT":
		c.Entrypoint, err = commandOf(rest)
	case "ENV":
		return pairs(rest, func(key, value string) {
			kept := c.Env[:0]
			for _, had := range c.Env {
				if !strings.HasPrefix(had, key+"=") {
					kept = append(kept, had)
				}
			}
			c.Env = append(kept, key+"="+value)
		})
	case "LABEL":
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		return pairs(rest, func(key, value string) { c.Labels[key] = value })
	case "EXPOSE":
		return each(&c.ExposedPorts, strings.Fields(rest), exposed)
	case "VOLUME":
		list := strings.Fields(rest)
		if strings.HasPrefix(rest, "[") {
			if err := json.Unmarshal([]byte(rest), &list); err != nil {
				return fmt.Errorf("is not a list of paths: %w", err)
			}
		}
		return each(&c.Volumes, list, func(volume string) (string, error) {
			if !path.IsAbs(volume) || path.Clean(volume) == "/" {
				return "", fmt.Errorf("%q is not a path of a folder in the image", volume)
			}
			return path.Clean(volume), nil
		})
	case "USER":
		c.User = rest
	case "WORKDIR":
		if !path.IsAbs(rest) {
			rest = path.Join("/", c.WorkingDir, rest)
		}
		c.WorkingDir = path.Clean(rest)
	case "STOPSIGNAL":
		number, err := strconv.Atoi(rest)
		name := "SIG" + strings.TrimPrefix(strings.ToUpper(rest), "SIG")
		realtime := strings.HasPrefix(name, "SIGRTM")
		if err == nil && (number < 1 || number > 64) || err != nil && !realtime && unix.SignalNum(name) == 0 {
			return fmt.Errorf("%q is not a signal", rest)
		}
		c.StopSignal = rest
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	case "HEALTHCHECK":
		c.Healthcheck, err = healthOf(rest)
	default:
		return fmt.Errorf("%s changes nothing of a configuration", word)
	}
	return err
}

// exposed completes a port or a range of them, 80 or 8000-8010/udp.
func exposed(port string) (string, error) {
	text, protocol, found := strings.Cut(port, "/")
	if !found {
		port, protocol = port+"/tcp", "tcp"
	}
	first, last, found := strings.Cut(text, "-")
	if !found {
		last = first
	}
	low, err := strconv.ParseUint(first, 10, 16)
	high, highErr := strconv.ParseUint(last, 10, 16)
	if err != nil || highErr != nil || low == 0 || low > high || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return "", fmt.Errorf("%q is not a port, such as 80 or 53/udp", port)
	}
	return port, nil
}

func each(set *map[string]struct{}, list []string, clean func(string) (string, error)) error {
	if *set == nil {
		*set = map[string]struct{}{}
	}
	for _, one := range list {
		cleaned, err := clean(one)
		if err != nil {
			return err
		}
		(*set)[cleaned] = struct{}{}
	}
	return nil
}

// commandOf reads a command: a JSON list, or words for a shell.
func commandOf(text string) ([]string, error) {
	if !strings.HasPrefix(text, "[") {
		return []string{"/bin/sh", "-c", text}, nil
	}
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("is not a list of words: %w", err)
	}
	return list, nil
}

// pairs reads KEY=VALUE..., where quotes and backslashes keep blanks, or KEY VALUE.
func pairs(text string, set func(key, value string)) error {
	first, rest, _ := strings.Cut(text, " ")
	if !strings.Contains(first, "=") {
		if rest = strings.TrimSpace(rest); rest == "" {
			return fmt.Errorf("%q is not KEY=VALUE", first)
		}
		set(first, rest)
		return nil
	}
	words, err := splitWords(text)
	if err != nil {
		return err
	}
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok || key == "" {
			return fmt.Errorf("%q is not KEY=VALUE", word)
		}
		set(key, value)
	}
	return nil
}

func splitWords(text string) (words []string, err error) {
	var word strings.Builder
	var quote rune
	inside, escaped := false, false
	for _, r := range text {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			inside, escaped = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			inside, quote = true, r
		case r == ' ' || r == '\t':
			if inside {
				words = append(words, word.String())
				word.Reset()
			}
			inside = false
		default:
			inside = true
			word.WriteRune(r)
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("its quotes do not end")
	}
	if inside {
		words = append(words, word.String())
	}
	return words, nil
}

// healthOf reads a HEALTHCHECK: NONE, or options and CMD with a command.
func healthOf(text string) (*v1.HealthConfig, error) {
	if strings.EqualFold(text, "NONE") {
		return &v1.HealthConfig{Test: []string{"NONE"}}, nil
	}
	h := &v1.HealthConfig{}
	for strings.HasPrefix(text, "--") {
		var option string
		option, text, _ = strings.Cut(text, " ")
		text = strings.TrimSpace(text)
		key, value, _ := strings.Cut(option[2:], "=")
		at := map[string]*time.Duration{"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod}[key]
		var err error
		if key == "retries" {
			h.Retries, err = strconv.Atoi(value)
		} else if at == nil {
			err = fmt.Errorf("--%s is no option of it", key)
		} else {
			*at, err = time.ParseDuration(value)
		}
		if err != nil {
			return nil, err
		}
	}
	word, command, _ := strings.Cut(text, " ")
	if command = strings.TrimSpace(command); !strings.EqualFold(word, "CMD") || command == "" {
		return nil, fmt.Errorf("wants NONE, or CMD and a command")
	}
	if !strings.HasPrefix(command, "[") {
		h.Test = []string{"CMD-SHELL", command}
		return h, nil
	}
	list, err := commandOf(command)
	h.Test = append([]string{"CMD"}, list...)
	return h, err
}
