package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// resolverCases are what tools and C libraries say, run in a station: dig and
// host, getent for glibc, and a small program built with musl.
func resolverCases() []struct {
	command string
	code    int
	want    string // each line sorted, or with ^ what has to be in it
} {
	const many = 60
	return []struct {
		command string
		code    int
		want    string
	}{
		{"dig +short db.shop.example", 0, "203.0.113.20"},
		{"dig +short db.shop.example AAAA", 0, "fd20::20"},
		{"dig +short DB.sHop.exAmple", 0, "203.0.113.20"},
		{"dig +noall +question +answer DB.sHop.exAmple", 0, "^DB.sHop.exAmple."},
		{"dig +tcp +short db.shop.example", 0, "203.0.113.20"},
		{"dig +noedns +short db.shop.example", 0, "203.0.113.20"},
		{"dig +short db.back.example", 0, "10.40.17.20"},
		{"dig +short www.alias.example", 0, "10.40.17.20"},
		{"dig +short www.shop.example", 0, "203.0.113.11\n203.0.113.12"},
		{"dig +short MX shop.example", 0, "10 mail.shop.example.\n20 mx.other.example."},
		{"dig +noall +additional MX shop.example", 0, "^mail.shop.example.\t1\tIN\tA\t203.0.113.25"},
		{"dig +noall +additional SRV _sip._tcp.shop.example", 0, "^www-1.shop.example.\t1\tIN\tAAAA\tfd20::11"},
		{"dig +short TXT shop.example", 0, `"v=spf1 -all" "two"`},
		{"dig +noall +answer TXT shop.example", 0, "^600\tIN\tTXT"},
		{"dig +short CAA shop.example", 0, `0 issue "ca.example"`},
		{"dig +short SRV _sip._tcp.shop.example", 0, "0 5 5060 www-1.shop.example."},
		{"dig +short TYPE65280 web.shop.example", 0, `\# 3 000102`},
		{"dig +short ftp.shop.example", 0, "203.0.113.12\nfiles.shop.example.\nwww-2.shop.example."},
		{"dig +short CNAME ftp.shop.example", 0, "files.shop.example."},
		{"dig +short any.apps.shop.example", 0, "203.0.113.9"},
		{"dig +short deep.any.apps.shop.example", 0, "203.0.113.9"},
		{"dig +short own.apps.shop.example", 0, ""},
		{"dig +short any.one.shop.example", 0, "203.0.113.12\nwww-2.shop.example."},
		{"dig +short TXT own.apps.shop.example", 0, `"here"`},
		{"dig own.apps.shop.example", 0, "^status: NOERROR"},
		{"dig apps.shop.example", 0, "^status: NOERROR"},
		{"dig nobody.shop.example", 0, "^status: NXDOMAIN"},
		{"dig nobody.shop.example", 0, "^shop.example.\t\t1\tIN\tSOA"},
		{"dig db.shop.example", 0, "^flags: qr aa rd ra; QUERY: 1, ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 1"},
		{"dig db.shop.example", 0, "^udp: 1232"},
		{"dig +short api.real.example", 0, "203.0.113.80"},
		{"dig www.real.example", 0, "^status: NXDOMAIN"},
		{"dig real.example", 0, "^status: NOERROR"},
		{"dig far.shop.example", 0, "^www.real.example."},
		{"dig +short SOA shop.example", 0, "^backbone.shop.example."},
		{"dig +short NS shop.example", 0, "backbone.shop.example."},
		{"dig CH TXT version.bind", 0, "^status: REFUSED"},
		{"dig AXFR shop.example", 0, "^Transfer failed."},
		{"dig +noedns +ignore many.shop.example", 0, "^flags: qr aa tc rd ra;"},
		{"dig +bufsize=512 +ignore many.shop.example", 0, "^flags: qr aa tc rd ra;"},
		{"dig +bufsize=4096 +ignore many.shop.example", 0, fmt.Sprintf("^ANSWER: %d,", many)},
		{"dig +noedns many.shop.example", 0, fmt.Sprintf("^ANSWER: %d,", many)},
		{"dig +short -x 203.0.113.20", 0, "db.shop.example."},
		{"dig +short -x fd20::20", 0, "db.shop.example."},
		{"dig +short -x 10.40.17.20", 0, "db.back.example."},
		{"dig +short -x 10.255.0.1", 0, "db.shop.example."},
		{"dig +short -x 10.99.0.0", 0, "db.shop.example."},
		{"dig +short -x 10.99.0.1", 0, "db.back.example."},
		{"dig +short -x 203.0.113.50", 0, "50.0/25.113.0.203.in-addr.arpa.\nclassless.shop.example."},
		{"dig -x 203.0.113.99", 0, "^99.113.0.203.in-addr.arpa. 1\tIN\tSOA"},
		{"dig -x 203.0.113.200", 0, "^flags: qr rd ra;"}, // outside of the /25
		{"dig -x 10.40.30.1", 0, "^status: NXDOMAIN"},
		{"dig -x 10.40.32.1", 0, "^flags: qr rd ra;"},

		{"host db", 0, "db.shop.example has IPv6 address fd20::20\ndb.shop.example has address 203.0.113.20"},
		{"host -t MX shop.example", 0, "shop.example mail is handled by 10 mail.shop.example.\nshop.example mail is handled by 20 mx.other.example."},
		{"host 203.0.113.20", 0, "20.113.0.203.in-addr.arpa domain name pointer db.shop.example."},
		{"host 203.0.113.50", 0, "^50.0/25.113.0.203.in-addr.arpa domain name pointer classless.shop.example."},
		{"host nobody.shop.example", 1, "Host nobody.shop.example not found: 3(NXDOMAIN)"},
		{"host ftp", 0, "^ftp.shop.example is an alias for files.shop.example."},

		{"getent hosts db", 0, "fd20::20        db.shop.example"},
		{"getent ahostsv4 db", 0, "203.0.113.20    DGRAM\n203.0.113.20    RAW\n203.0.113.20    STREAM db.shop.example"},
		{"getent ahostsv4 ftp", 0, "203.0.113.12    DGRAM\n203.0.113.12    RAW\n203.0.113.12    STREAM www-2.shop.example"},
		{"getent ahostsv4 db.back.example", 0, "10.40.17.20     DGRAM\n10.40.17.20     RAW\n10.40.17.20     STREAM db.back.example"},
		{"getent hosts 203.0.113.20", 0, "203.0.113.20    db.shop.example"},
		{"getent hosts 203.0.113.50", 0, "203.0.113.50    classless.shop.example"},
		{"getent ahostsv4 any.one", 0, "203.0.113.12    DGRAM\n203.0.113.12    RAW\n203.0.113.12    STREAM www-2.shop.example"},
		{"getent hosts fd20::20", 0, "fd20::20        db.shop.example"},
		{"getent hosts nobody", 2, ""},
		{"getent hosts www.real.example", 2, ""},
		{"getent ahostsv4 many", 0, fmt.Sprintf("#%d", 3*many)},
		{"getent hosts shell", 0, "fd20::2         shell.shop.example shell"},

		{"/opt/bin/resolve - db", 0, "203.0.113.20 fd20::20"},
		{"/opt/bin/resolve -4 DB.Shop.Example", 0, "203.0.113.20"},
		{"/opt/bin/resolve -6 db", 0, "fd20::20"},
		{"/opt/bin/resolve - db.back.example", 0, "10.40.17.20"},
		{"/opt/bin/resolve -6 db.back.example", 2, ""},
		{"/opt/bin/resolve - ftp", 0, "203.0.113.12 fd20::12"},
		{"/opt/bin/resolve - www", 0, "203.0.113.11 203.0.113.12 fd20::11 fd20::12"},
		{"/opt/bin/resolve -4 x.apps.shop.example", 0, "203.0.113.9"},
		{"/opt/bin/resolve - nobody", 2, ""},
		{"/opt/bin/resolve - www.real.example", 2, ""},
		{"/opt/bin/resolve -x 203.0.113.20", 0, "db.shop.example"},
		{"/opt/bin/resolve -x 203.0.113.50", 0, "classless.shop.example"},
		{"/opt/bin/resolve - any.one.shop.example", 0, "203.0.113.12 fd20::12"},
		{"/opt/bin/resolve -x fd20::20", 0, "db.shop.example"},
		{"/opt/bin/resolve -x 203.0.113.99", 2, ""},
	}
}

// TestResolvers asks in a station with the tools that people use, and the
// resolvers of both C libraries.
func TestResolvers(t *testing.T) {
	needsRoot(t)
	for _, tool := range []string{"dig", "host", "musl-gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v, and CI installs it", err)
			}
			t.Skip(err)
		}
	}
	program, dir := build(t), t.TempDir()
	file := filepath.Join(dir, "platelayer.yaml")
	text, err := os.ReadFile("testdata/resolvers/platelayer.yaml")
	if err == nil {
		err = errors.Join(os.WriteFile(file, text, 0o644), os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	musl := exec.Command("musl-gcc", "-static", "-o", filepath.Join(dir, "bin/resolve"), "testdata/resolvers/resolve.c")
	if out, err := musl.CombinedOutput(); err != nil {
		t.Fatalf("cannot build with musl: %v\n%s", err, out)
	}
	name, root := fmt.Sprintf("r%d", os.Getpid()), filepath.Join(dir, "state")
	t.Cleanup(func() { downAll(t, program, root) })
	if out, err := exec.Command(program, "--root", root, "-n", name, "up", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("cannot bring it up: %v\n%s", err, out)
	}
	for _, test := range resolverCases() {
		args := append([]string{"--root", root, "-n", name, "exec", "web/shell"}, strings.Fields(test.command)...)
		c := exec.Command(program, args...)
		c.Stdin = nil
		out, err := c.Output()
		code, exit := 0, new(exec.ExitError)
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		got := strings.TrimSpace(string(out))
		lines := strings.Split(got, "\n")
		for i := range lines {
			lines[i] = strings.TrimRight(lines[i], " ")
		}
		slices.Sort(lines)
		sorted := strings.Join(lines, "\n")
		right := sorted == test.want
		if part, ok := strings.CutPrefix(test.want, "^"); ok {
			right = strings.Contains(got, part)
		} else if count, ok := strings.CutPrefix(test.want, "#"); ok {
			right = fmt.Sprint(len(lines)) == count
		}
		if !right || code != test.code {
			t.Errorf("%s: code %d, want %d, and\n%s\nwant\n%s", test.command, code, test.code, got, test.want)
		}
	}
}
