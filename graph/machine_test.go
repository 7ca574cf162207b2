package graph

import (
	"strings"
	"testing"
)

// TestPublications: ports that follow one another are a range, others are not.
func TestPublications(t *testing.T) {
	top := parse(t, `
name: t
clusters:
  lan:
    stations:
      a: {ports: ["80", "1:81", "2:82", "3:82/udp", "4:83/udp", "127.0.0.1:5:84", "6:85", "7000-7002:7000-7002", "8000-8010:90", "[::1]:9:9", "[::1]:10:10"]}
`)
	var texts, outside []string
	for _, p := range publications(top.Stations()[0].Ports) {
		texts, outside = append(texts, p.text()), append(outside, p.outside())
	}
	for _, c := range []struct{ got, want string }{
		{strings.Join(texts, " "), "any:80 1-2:81-82 3-4:82-83/udp 127.0.0.1:5:84 6:85 7000-7002:7000-7002 8000-8010:90 [::1]:9-10:9-10"},
		{strings.Join(outside, " "), "any 1-2 3-4/udp 127.0.0.1:5 6 7000-7002 8000-8010 [::1]:9-10"},
	} {
		if c.got != c.want {
			t.Errorf("%s\nnot %s", c.got, c.want)
		}
	}
}
