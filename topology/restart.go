package topology

import (
	"fmt"
	"strconv"
	"strings"
)

// restart reads a restart policy. A bare no is false to some YAML writers.
func (l *loader) restart(n *node) Restart {
	if n == nil {
		return Restart{}
	}
	policies := []string{RestartNo, RestartAlways, RestartOnFailure, RestartUnlessStopped}
	policy, count, counted := strings.Cut(n.text, ":")
	switch {
	case n.text == RestartNo || n.text == "false":
		return Restart{}
	case policy == RestartOnFailure && counted:
		tries, err := strconv.Atoi(count)
		if err != nil || tries < 1 {
			l.spoil(n, fmt.Sprintf("%s is not a number of restarts", quoted(count)), "write on-failure:5, or on-failure for no bound")
		}
		return Restart{Policy: policy, MaxRetries: tries}
	case (policy == RestartAlways || policy == RestartUnlessStopped) && counted:
		l.spoil(n, fmt.Sprintf("%s takes no number", policy), fmt.Sprintf("write %s, or on-failure:%s", policy, count))
	case policy == RestartAlways, policy == RestartOnFailure, policy == RestartUnlessStopped:
		return Restart{Policy: policy}
	default:
		hint := "it is no, always, on-failure, on-failure:N or unless-stopped"
		guess := nearest(strings.ReplaceAll(n.text, "_", "-"), policies)
		switch n.text {
		case "true", "yes":
			guess = RestartAlways
		case "never":
			guess = RestartNo
		}
		if guess != "" {
			hint = fmt.Sprintf("did you mean %s?", guess)
		}
		l.spoil(n, fmt.Sprintf("restart cannot be %s", quoted(n.text)), hint)
	}
	return Restart{}
}

// String is the policy as a file has it.
func (r Restart) String() string {
	switch {
	case r.Policy == "":
		return RestartNo
	case r.MaxRetries > 0:
		return fmt.Sprintf("%s:%d", r.Policy, r.MaxRetries)
	}
	return r.Policy
}
