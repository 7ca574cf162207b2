package lifecycle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"platelayer/topology"
)

func mustLoad(t testing.TB, file string) *topology.Topology {
	t.Helper()
	top, err := topology.Load("f.yaml", []byte(file), topology.Options{Name: "shop", Dir: "/srv/shop"})
	if err != nil {
		t.Fatalf("%s\n%v", file, err)
	}
	return top
}

func render(changes []Change) string {
	var b bytes.Buffer
	WriteChanges(&b, changes)
	b.WriteString("\n")
	for _, c := range changes {
		fmt.Fprintln(&b, c)
	}
	return b.String()
}

// TestCompareGolden compares pairs of testdata/compare: NAME.old.yaml,
// NAME.new.yaml and what is told of them in NAME.txt.
func TestCompareGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/compare/*.old.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".old.yaml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			var tops []*topology.Topology
			for _, which := range []string{".old.yaml", ".new.yaml"} {
				data, err := os.ReadFile(name + which)
				if err != nil {
					t.Fatal(err)
				}
				tops = append(tops, mustLoad(t, string(data)))
			}
			got := render(compare(tops[0], tops[1]))
			if os.Getenv("UPDATE_GOLDEN") != "" { // rewrites them
				if err := os.WriteFile(name+".txt", []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name + ".txt")
			if err != nil {
				t.Fatal(err, "; UPDATE_GOLDEN=1 writes it")
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("differs from %s.txt (-want +got):\n%s", name, diff)
			}
			if strings.Contains(got, "secret") {
				t.Error("the value of a variable is told")
			}
		})
	}
}

// replacing are the fields of topology.Station that its process is made of.
var replacing = []string{"Rootfs", "Digest", "Writable", "Entrypoint", "Command", "Environment", "WorkingDir", "User", "Hostname", "Volumes",
	"Startup", "Integrity", "Ulimits", "OOMScoreAdj", "GroupAdd", "TTY", "StdinOpen", "Init", "ReadOnly", "Systemd", "Tmpfs", "Files", "Devices",
	"CapAdd", "CapDrop", "Privileged", "Security", "Sysctls", "PID", "IPC", "TLS", "Trust"}

// TestEveryFieldIsCompared changes each field of a station, a cluster and the
// backbone, however deep, by itself: each change is told, and madeFrom differs
// for those that replace the process alone.
func TestEveryFieldIsCompared(t *testing.T) {
	station := new(topology.Station)
	fill(t, reflect.ValueOf(station).Elem())
	hash := madeFrom(station)
	n := vary(t, reflect.ValueOf(station).Elem(), "", func(path string) {
		if path == ".Name" || path == ".Cluster" {
			return
		}
		before := new(topology.Station)
		fill(t, reflect.ValueOf(before).Elem())
		reasons, replaced := differences(stationFields(), before, station)
		if n := len(reasons); n != 1 && n != 2 { // one, or one gone and one come
			t.Errorf("Station%s has changed: %q", path, reasons)
		}
		name, _, _ := strings.Cut(path[1:], ".")
		name, _, _ = strings.Cut(name, "[")
		name, _, _ = strings.Cut(name, " ") // of a pointer that is gone
		if want := slices.Contains(replacing, name) || path == ".Resources.ShmSize"; replaced != want || (madeFrom(station) != hash) != want {
			t.Errorf("Station%s has changed: replaced %v, hash %s of %s", path, replaced, madeFrom(station), hash)
		}
	})
	if n < 50 {
		t.Errorf("only %d fields", n)
	}
	if madeFrom(station) != hash {
		t.Error("the changes were not taken back")
	}
	cluster := new(topology.Cluster)
	fill(t, reflect.ValueOf(cluster).Elem())
	vary(t, reflect.ValueOf(cluster).Elem(), "", func(path string) {
		if path == ".Name" || strings.HasPrefix(path, ".Stations") {
			return
		}
		before := new(topology.Cluster)
		fill(t, reflect.ValueOf(before).Elem())
		if reasons, _ := differences(clusterFields(), before, cluster); len(reasons) != 1 && len(reasons) != 2 {
			t.Errorf("Cluster%s has changed: %q", path, reasons)
		}
	})
	backbone := new(topology.Backbone)
	fill(t, reflect.ValueOf(backbone).Elem())
	vary(t, reflect.ValueOf(backbone).Elem(), "", func(path string) {
		before := new(topology.Backbone)
		fill(t, reflect.ValueOf(before).Elem())
		if reasons, _ := differences(backboneFields(), before, backbone); len(reasons) != 1 && len(reasons) != 2 {
			t.Errorf("Backbone%s has changed: %q", path, reasons)
		}
	})
}

// fill gives every field of v a value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("10.0.0.2")))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.MustParsePrefix("10.0.0.0/24")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("a=a")
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint16, reflect.Uint32:
		v.SetUint(1)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Bool:
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), reflect.ValueOf("v"))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	default:
		t.Fatalf("fill knows no %s", v.Type())
	}
}

// vary changes each value in v in turn, calls changed, and takes it back. It
// returns how many there were.
func vary(t *testing.T, v reflect.Value, path string, changed func(path string)) int {
	t.Helper()
	try := func(other any, how string) int {
		before := reflect.New(v.Type()).Elem()
		before.Set(v)
		v.Set(reflect.ValueOf(other).Convert(v.Type()))
		changed(path + how)
		v.Set(before)
		return 1
	}
	switch v.Interface().(type) {
	case netip.Addr:
		return try(netip.MustParseAddr("10.0.0.3"), "")
	case netip.Prefix:
		return try(netip.MustParsePrefix("10.0.1.0/24"), "")
	}
	n := 0
	switch v.Kind() {
	case reflect.String:
		n += try("a=b", "")
	case reflect.Int, reflect.Int64:
		n += try(v.Int()+1, "")
	case reflect.Uint16, reflect.Uint32:
		n += try(v.Uint()+1, "")
	case reflect.Float64:
		n += try(v.Float()+1, "")
	case reflect.Bool:
		n += try(!v.Bool(), "")
	case reflect.Pointer:
		n += try(reflect.Zero(v.Type()).Interface(), " gone") + vary(t, v.Elem(), path, changed)
	case reflect.Slice:
		n += try(reflect.Zero(v.Type()).Interface(), "[] gone")
		n += try(reflect.AppendSlice(v, v).Interface(), "[] twice")
		n += vary(t, v.Index(0), path+"[0]", changed)
	case reflect.Map:
		n += try(reflect.Zero(v.Type()).Interface(), "[] gone") + try(map[string]string{"k": "w"}, "[k]")
	case reflect.Struct:
		for i := range v.NumField() {
			n += vary(t, v.Field(i), path+"."+v.Type().Field(i).Name, changed)
		}
	default:
		t.Fatalf("vary knows no %s", v.Type())
	}
	return n
}

// TestMadeFromIsForEver: another hash of the same station would recreate every
// user's stations.
func TestMadeFromIsForEver(t *testing.T) {
	s := &topology.Station{
		Name: "a", Cluster: "lan", Writable: "disk", Hostname: "a", Command: []string{"sleep", "1"}, Environment: []string{"A=1"},
		Volumes: []topology.Volume{{Source: "/srv", Target: "/data", ReadOnly: true}},
	}
	if got, want := madeFrom(s), "39457d4653288963"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

// TestDifferentWordsLookDifferent: what is told is also what is compared.
func TestDifferentWordsLookDifferent(t *testing.T) {
	seen := map[string][]string{}
	for _, c := range [][]string{nil, {""}, {"", ""}, {" "}, {"a b"}, {"a", "b"}, {`"a`, `b"`}, {`"a b"`}, {"a\nb"}, {`a\nb`}, {"\xff"}, {"\ufffd"}, {"[a]"}, {"a]", "[b"}} {
		shown := wholeText(wordsPart(c))
		if other, twice := seen[shown]; twice {
			t.Errorf("%q and %q are both %s", c, other, shown)
		}
		seen[shown] = c
		if strings.ContainsAny(shown, "\n\x1b") {
			t.Errorf("%q is shown as it is", c)
		}
	}
}

// TestCompareAfterTheState: what is read back from a state file is the same.
func TestCompareAfterTheState(t *testing.T) {
	top := mustLoad(t, "clusters: {lan: {stations: {a: {entrypoint: [], command: [], depends_on: [b]}, b: }}}")
	data, err := json.Marshal(top)
	if err != nil {
		t.Fatal(err)
	}
	back := new(topology.Topology)
	if err := json.Unmarshal(data, back); err != nil {
		t.Fatal(err)
	}
	if changes := compare(back, top); len(changes) > 0 {
		t.Error(render(changes))
	}
}

// randomFile writes a topology of up to three clusters.
func randomFile(random *rand.Rand) string {
	var b strings.Builder
	pick := func(some ...string) string { return some[random.IntN(len(some))] }
	fmt.Fprintf(&b, "backbone: {egress: none}\nclusters:\n")
	for c := range 1 + random.IntN(3) {
		fmt.Fprintf(&b, "  c%d:\n    subnet: 10.%d.%d.0/24\n    mtu: %s\n%s    stations:\n", c, c, random.IntN(2), pick("1400", "1500"),
			pick("", "    gateway: s0\n"))
		for s := range 1 + random.IntN(4) {
			fmt.Fprintf(&b, "      s%d: {command: [%s], mem_limit: %s, environment: {T: %s}%s}\n", s,
				pick("a", "b"), pick("64m", "65m"), pick("secret1", "secret2"), pick("", ", rootfs: host", ", user: nobody"))
		}
	}
	return b.String()
}

// TestCompareRandom: nothing for the same, and each station that differs once.
func TestCompareRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		fileA, fileB := randomFile(random), randomFile(random)
		checkCompare(t, mustLoad(t, fileA), mustLoad(t, fileB), mustLoad(t, fileA))
	}
}

func checkCompare(t *testing.T, a, b, aAgain *topology.Topology) {
	t.Helper()
	if changes := compare(a, aAgain); len(changes) > 0 {
		t.Fatalf("the same differs:\n%s", render(changes))
	}
	was, is := survey(a), survey(b)
	changes := compare(a, b)
	removing := false
	told := map[string]Action{}
	for _, c := range changes {
		if key := c.Object + " " + c.Name; told[key] != "" {
			t.Fatalf("%s is told twice:\n%s", key, render(changes))
		} else {
			told[key] = c.Action
		}
		if removing && c.Action != ActionRemove {
			t.Fatalf("a removal is not last:\n%s", render(changes))
		}
		removing = c.Action == ActionRemove
		if strings.Contains(c.String(), "secret") {
			t.Fatalf("the value of a variable is told: %s", c)
		}
		for _, id := range append(c.Neighbours, c.Restarts...) {
			if is.stations[id] == nil || was.stations[id] == nil || id == c.Name {
				t.Fatalf("%s is no neighbour: %s", id, c)
			}
		}
	}
	for id, s := range is.stations {
		old := was.stations[id]
		var want Action
		switch {
		case old == nil:
			want = ActionCreate
		case madeFrom(old) != madeFrom(s):
			want = ActionRecreate
		case !sameJSON(t, old, s):
			want = ActionChange
		}
		if got := told["station "+id]; got != want {
			t.Fatalf("station %s: %q, not %q:\n%s", id, got, want, render(changes))
		}
	}
	for id := range was.stations {
		if is.stations[id] == nil && told["station "+id] != ActionRemove {
			t.Fatalf("station %s is not removed:\n%s", id, render(changes))
		}
	}
}

func sameJSON(t *testing.T, a, b any) bool {
	t.Helper()
	left, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	right, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(left, right)
}

// TestNeighbours: who restarts with a station, and who leaves through it.
func TestNeighbours(t *testing.T) {
	file := func(command string) *topology.Topology {
		top := mustLoad(t, `
clusters:
  web:
    subnet: 10.1.0.0/24
    gateway: lb
    stations:
      lb: {address: 10.1.0.1, command: [`+command+`]}
      app: {address: 10.1.0.2}
      own: {address: 10.1.0.3, routes: [{to: 0.0.0.0/0, via: 10.1.0.2}]}
  back:
    subnet: 10.2.0.0/24
    stations:
      db: {address: 10.2.0.2, interfaces: [{cluster: web, address: 10.1.0.9}], depends_on: [web/app, web/lb]}
      job: {address: 10.2.0.3, depends_on: [db]}
      other: {address: 10.2.0.4, depends_on: [db]}
`)
		for _, id := range []string{"db", "job"} {
			s, err := top.Lookup(id)
			if err != nil {
				t.Fatal(err)
			}
			for i := range s.DependsOn {
				s.DependsOn[i].Restart = true
			}
		}
		return top
	}
	for _, c := range []struct {
		name   string
		change func(*objects)
		want   string
	}{
		{"recreated", func(o *objects) { o.stations["web/lb"].User = "nobody" },
			"! station web/lb  recreate  user: none -> nobody; restarts also: back/db, back/job; noticed by: web/app"},
		{"moved", func(o *objects) { o.stations["web/lb"].Addresses[0] = netip.MustParseAddr("10.1.0.8") },
			"~ station web/lb  change  address: 10.1.0.1 -> 10.1.0.8; noticed by: web/app"},
		{"only limited", func(o *objects) { o.stations["web/lb"].MemLimit = 64 << 20 },
			"~ station web/lb  change  mem_limit: none -> 64m"},
		{"a router by a route", func(o *objects) { o.stations["web/app"].User = "nobody" },
			"! station web/app  recreate  user: none -> nobody; restarts also: back/db, back/job; noticed by: web/own"},
		{"cluster", func(o *objects) { o.clusters["web"].MTU = 1400 },
			"~ cluster web  change  mtu: 1500 -> 1400; noticed by: web/lb, web/app, web/own, back/db"},
		{"a cycle", func(o *objects) {
			o.stations["back/db"].DependsOn = append(o.stations["back/db"].DependsOn, topology.Dependency{Station: "back/job", Condition: topology.Started, Restart: true})
		}, "~ station back/db  change  depends_on: back/job service_started restart added"},
	} {
		old, new := file("a"), file("a")
		c.change(survey(new))
		changes := compare(old, new)
		if len(changes) != 1 || changes[0].String() != c.want {
			t.Errorf("%s:\n%swant\n%s", c.name, render(changes), c.want)
		}
	}
}

// TestCompareNothing: nil is a topology that is not there.
func TestCompareNothing(t *testing.T) {
	top := mustLoad(t, "clusters: {lan: {stations: {a: }}}")
	want := "+ backbone\n+ cluster lan\n+ station lan/a\n- station lan/a\n- cluster lan\n- backbone\n"
	got := ""
	for _, c := range append(compare(nil, top), compare(top, nil)...) {
		got += c.title() + "\n"
	}
	if got != want || len(compare(nil, nil)) > 0 {
		t.Errorf("got\n%s", got)
	}
}

func TestCompareLinks(t *testing.T) {
	link := func(from, to string, mtu int, subnets ...netip.Prefix) topology.Link {
		return topology.Link{Ends: [2]topology.LinkEnd{{Station: from, Name: "eth1"}, {Station: to, Name: "eth1"}}, MTU: mtu, Subnets: subnets}
	}
	subnet := netip.MustParsePrefix("10.99.0.0/31")
	old := []topology.Link{link("a/x", "b/x", 1500), link("a/x", "c/x", 1500), link("c/x", "d/x", 1500)}
	changes := compareLinks(old, []topology.Link{link("c/x", "d/x", 1500), link("a/x", "b/x", 9000, subnet), link("a/y", "b/x", 1500)})
	want := []Change{
		{Object: "link", Name: "a/x:eth1 b/x:eth1", Action: ActionChange, Reasons: []string{"subnet none -> subnet 10.99.0.0/31", "mtu 1500 -> mtu 9000"}, Neighbours: []string{"a/x", "b/x"}},
		{Object: "link", Name: "a/y:eth1 b/x:eth1", Action: ActionCreate, Neighbours: []string{"a/y", "b/x"}},
		{Object: "link", Name: "a/x:eth1 c/x:eth1", Action: ActionRemove, Neighbours: []string{"a/x", "c/x"}},
	}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Error(diff)
	}
}
