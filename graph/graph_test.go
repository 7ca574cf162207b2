package graph

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"platelayer/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files and the documents' pictures")

func load(t *testing.T, path string) *topology.Topology {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(data))
}

func parse(t *testing.T, text string) *topology.Topology {
	t.Helper()
	top, err := topology.Load("platelayer.yaml", []byte(text), topology.Options{Dir: "/srv/x", ReadFile: os.ReadFile})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return top
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err, "; -update writes it")
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("differs from %s (-want +got), -update writes it:\n%s", path, diff)
	}
}

// small has one of everything.
const small = `
name: small
backbone: {egress: none}
clusters:
  office:
    subnets: [10.40.0.0/24, "fd40::/64"]
    gateway: {station: fw, inline: true}
    stations:
      desk: {address: 10.40.0.10, ports: ["127.0.0.1:8080:80"], egress: ["registry.example:443", 198.51.100.0/24]}
      fw: {address: 10.40.0.1, ports: ["9000-9003:9000-9003", "53/udp"]}
  dc:
    subnet: 10.41.0.0/24
    gateway: [main, spare]
    isolated: true
    stations:
      main: {address: 10.41.0.1, tls: true}
      spare: {address: 10.41.0.2, interfaces: [{cluster: store, address: 10.42.0.2}]}
  store: {subnet: 10.42.0.0/24, backbone: none, switch: host, attach: [eth7], stations: {disk: {address: 10.42.0.10, loopback: [10.255.1.1], vlan: 20}}}
  wire: {subnet: none, stations: {tap: }}
links: [{endpoints: [desk, main], subnet: 10.98.0.0/31}, {endpoints: [main, spare]}]
`

func TestGolden(t *testing.T) {
	states := map[string]State{"office/fw": {"healthy", Good}, "office/desk": {"exited", Bad}, "dc/main": {"starting", Busy}, "dc/spare": {"stopped", Idle}}
	routed := []netip.Prefix{netip.MustParsePrefix("10.40.0.0/24")}
	golden(t, "testdata/small.svg", SVG(parse(t, small), Options{States: states, Routed: routed}))
	golden(t, "testdata/small-dark.svg", SVG(parse(t, small), Options{Dark: true}))
	golden(t, "testdata/small.mmd", Mermaid(parse(t, small), Options{States: states, Routed: routed}))
	golden(t, "testdata/small.dot", Dot(parse(t, small), Options{States: states, Routed: routed}))
}

// TestPictures wants the pictures that the documents show to be those of today.
func TestPictures(t *testing.T) {
	for _, name := range []string{"hello", "shop", "life", "network", "routing"} {
		top, err := load(t, "../examples/"+name+"/platelayer.yaml").Select(topology.Selection{})
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "../docs/pictures/"+name+".svg", SVG(top, Options{Routed: subnets(top)}))
	}
	campus := load(t, "testdata/campus.yaml")
	golden(t, "../docs/pictures/campus.svg", SVG(campus, Options{Routed: subnets(campus)}))
}

// subnets are all of a topology's: the machine has routes to those of the
// documents' pictures.
func subnets(t *topology.Topology) []netip.Prefix {
	var all []netip.Prefix
	for _, c := range t.Clusters {
		all = append(all, c.Subnets...)
	}
	return all
}

// crowds are topologies that a picture has to make room for.
func crowds(t *testing.T) map[string]*topology.Topology {
	long := strings.Repeat("a-very-long-name-", 4)[:62] + "x"
	var many, wired strings.Builder
	many.WriteString("name: many\nclusters:\n")
	for c := range 12 {
		fmt.Fprintf(&many, "  c%d:\n    subnets: [10.%d.0.0/24, \"2001:db8:ffff:%x::/64\"]\n    stations:\n", c, c, c+0x1000)
		for s := range 1 + c*c/2 {
			fmt.Fprintf(&many, "      s%d: {interfaces: [{cluster: c%d}]}\n", s, (c+1+s%11)%12)
		}
	}
	wired.WriteString("name: wired\nclusters:\n  a: {stations: {x: {replicas: 9}}}\n  b: {subnet: none, stations: {y: {replicas: 9}}}\n  empty: {}\nlinks:\n")
	for i := range 9 {
		for j := range 4 {
			fmt.Fprintf(&wired, "  - {endpoints: [x-%d, y-%d], subnet: \"2001:db8:%x:%x::/64\"}\n", i+1, (i+j)%9+1, i, j)
			if j > 0 && i > 0 {
				fmt.Fprintf(&wired, "  - {endpoints: [x-%d, x-%d]}\n", i+1, (i+j)%9+1)
			}
		}
	}
	return map[string]*topology.Topology{
		"small":  parse(t, small),
		"campus": load(t, "testdata/campus.yaml"),
		"long": parse(t, fmt.Sprintf("name: %[1]s\nclusters:\n  %[1]s:\n    domain: %[2]s\n    gateway: %[1]s\n    stations: {%[1]s: {interfaces: [{cluster: b%[3]s}], interface_name: fifteen-letters}}\n  b%[3]s: {stations: {b%[3]s: }}\nlinks: [{endpoints: [%[1]s, b%[3]s]}]\n",
			long, strings.Repeat("label-of-a-domain.", 6)+"example", long[1:])),
		"many":  parse(t, many.String()),
		"open":  parse(t, open),
		"wired": parse(t, wired.String()),
		"one":   parse(t, "name: one\nclusters: {lan: {stations: {a: }}}"),
		"bare":  parse(t, "name: bare\nclusters: {lan: {}}"),
	}
}

// open has more to say of the machine and the outside than fits into a line.
const open = `
name: open
backbone:
  egress: [198.51.100.7, "registry.example:443", "a.very.long.name.of.a.registry.somewhere.on.earth.example:8443", "another.such.name.that.is.not.short.example:8443", x.example, y.example]
  host_access: true
clusters:
  a:
    subnet: 10.50.0.0/24
    stations:
      w: {ports: ["[2001:db8::1]:8080:80", "80", "5300-5310:53/udp", "1:1", "3:1", "5:1", "7:1", "9:1", "11:1"]}
      x: {egress: [198.51.100.200, "a.long.name.in.a.list.example:443"]}
  b: {subnet: 9.9.9.0/24, egress: none, switch: host, attach: [eth7, '<b>&"'], stations: {y: {vlans: [10, 20, 30, 40, 50, 60, 70]}}}
`

// TestRoom: texts are whole, inside of the picture, and lie neither on each
// other nor under a line; what it says is well-formed.
func TestRoom(t *testing.T) {
	for name, top := range crowds(t) {
		t.Run(name, func(t *testing.T) {
			states := map[string]State{}
			for _, s := range top.Stations() {
				states[s.ID()] = State{"restarting", Busy}
			}
			o := Options{States: states, Routed: subnets(top)[:min(1, len(subnets(top)))]}
			svg := SVG(top, o)
			if svg != SVG(top, o) {
				t.Error("two pictures of one topology differ")
			}
			p := look(t, svg)
			for _, s := range top.Stations() {
				if got := strings.ReplaceAll(p.all, "\n", ""); !strings.Contains(got, s.Name) {
					t.Errorf("the picture does not name %s", s.Name)
				}
				for _, a := range s.Addresses {
					if !strings.Contains(p.all, "\n"+a.String()+"\n") {
						t.Errorf("the picture does not have %s", a)
					}
				}
			}
			bad := 0
			complain := func(format string, args ...any) {
				if bad++; bad < 6 {
					t.Errorf(format, args...)
				}
			}
			for i, a := range p.texts {
				if a.x < 0 || a.y < 0 || a.right() > p.w || a.bottom() > p.h {
					complain("%q is outside of the picture", a.text)
				}
				for _, b := range p.texts[i+1:] {
					if a.meets(b.rect) {
						complain("%q lies on %q", a.text, b.text)
					}
				}
				for _, l := range p.lines {
					if a.meets(l) {
						complain("a line crosses %q: %v %v", a.text, a.rect, l)
					}
				}
			}
		})
	}
}

func (r rect) meets(o rect) bool {
	return r.x < o.right() && o.x < r.right() && r.y < o.bottom() && o.y < r.bottom()
}

// seen is what a reader of SVG makes of a picture.
type seen struct {
	w, h  float64
	texts []seenText
	lines []rect // straight ones
	all   string // of texts, a line for each
}

type seenText struct {
	rect
	text string
}

func look(t *testing.T, svg string) *seen {
	t.Helper()
	p := &seen{all: "\n"}
	d := xml.NewDecoder(strings.NewReader(svg))
	var open *seenText
	end := false
	var f font
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return p
		}
		if err != nil {
			t.Fatalf("no XML: %v", err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			value := func(key string) string {
				for _, a := range e.Attr {
					if a.Name.Local == key {
						return a.Value
					}
				}
				return ""
			}
			number := func(key string) float64 {
				v, err := strconv.ParseFloat(value(key), 64)
				if err != nil {
					t.Fatalf("%s has no %s: %v", e.Name.Local, key, err)
				}
				return v
			}
			switch e.Name.Local {
			case "svg":
				p.w, p.h = number("width"), number("height")
			case "text":
				f = font{size: number("font-size"), mono: strings.Contains(value("font-family"), "mono"), bold: value("font-weight") != ""}
				open, end = &seenText{rect: rect{x: number("x"), y: number("y") - 0.75*f.size, h: f.size}}, value("text-anchor") == "end"
			case "path":
				p.lines = append(p.lines, segments(t, value("d"))...)
			}
		case xml.CharData:
			if open != nil {
				open.text += string(e)
			}
		case xml.EndElement:
			if e.Name.Local == "text" {
				if open.w = f.width(open.text); end {
					open.x -= open.w
				}
				p.texts = append(p.texts, *open)
				p.all += open.text + "\n"
				open = nil
			}
		}
	}
}

// segments are a path's straight lines, as thin rectangles.
func segments(t *testing.T, path string) []rect {
	var all []rect
	var at [2]float64
	for i, m := range regexp.MustCompile(`([MLQ])([^MLQ]*)`).FindAllStringSubmatch(path, -1) {
		var n []float64
		for _, text := range strings.Fields(m[2]) {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			n = append(n, v)
		}
		to := [2]float64{n[len(n)-2], n[len(n)-1]}
		if i > 0 {
			all = append(all, rect{min(at[0], to[0]), min(at[1], to[1]), math.Abs(at[0]-to[0]) + 0.1, math.Abs(at[1]-to[1]) + 0.1})
		}
		at = to
	}
	return all
}

// TestImports keeps the package pure.
func TestImports(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, no := range []string{`"os"`, `"time"`, `"math/rand`, `"syscall"`} {
			if strings.Contains(string(data), no) {
				t.Errorf("%s imports %s", name, no)
			}
		}
	}
}
