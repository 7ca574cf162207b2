package topology

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// importOptions are those of every test: the compose file is compose.yml in
// the test's folder, the topology beside it.
func importOptions() ImportOptions {
	return ImportOptions{ReadFile: func(path string) ([]byte, error) {
		for name, text := range map[string]string{
			"/sub/compose.yml": "services:\n  part: {image: part, volumes: ['./p:/p', 'd:/d'], env_file: [p.env], networks: [n], nonsense: 1}\n" +
				"  shared: {image: theirs}\nvolumes: {d: }\nconfigs: {c: {file: c.conf}}\nnetworks: {n: }\ninclude: [../compose.yml, compose.yml]\n",
			"/sub/more.yml": "services: {more: {volumes: [./m:/m]}}\n",
			"/sub/base.yml": "services: {common: {env_file: base.env, volumes: [./b:/b], extends: root}, root: {tty: true, ports: [80]}}\n",
		} {
			if strings.HasSuffix(path, name) {
				return []byte(text), nil
			}
		}
		return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	}}
}

// TestImport holds each compose file of testdata/import.golden against the
// topology and the report below it.
func TestImport(t *testing.T) {
	const path = "testdata/import.golden"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var updated strings.Builder
	for _, c := range strings.Split("\n"+string(data), "\n=== ")[1:] {
		name, rest, _ := strings.Cut(c, "\n")
		parts := strings.Split(strings.TrimSuffix(rest, "\n")+"\n", "--- \n")
		if len(parts) != 3 {
			t.Fatalf("%s has %d parts", name, len(parts))
		}
		var text, report string
		t.Run(name, func(t *testing.T) {
			text, report = imported(t, parts[0])
			if flag.Lookup("update").Value.String() != "true" {
				if text != parts[1] {
					t.Errorf("the topology is\n%s\nnot\n%s", text, parts[1])
				}
				if report != parts[2] {
					t.Errorf("the report is\n%s\nnot\n%s", report, parts[2])
				}
			}
		})
		fmt.Fprintf(&updated, "=== %s\n%s--- \n%s--- \n%s", name, parts[0], text, report)
	}
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, []byte(updated.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// imported runs Import and wants of every topology what is promised of all:
// check refuses nothing in it that the report has not told, but builds and
// variables that are not set.
func imported(t *testing.T, compose string) (text, report string) {
	t.Helper()
	out, left, err := Import("compose.yml", []byte(compose), importOptions())
	if err != nil {
		var problems Problems
		if !errors.As(err, &problems) || out != nil {
			t.Fatalf("%v, with %q", err, out)
		}
		return "", problems.Error() + "\n"
	}
	told := left.Error()
	if told != "" {
		told += "\n"
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Dir: dir, LookupEnv: func(name string) (string, bool) { return "/root", name == "HOME" },
		ReadFile: func(string) ([]byte, error) { return nil, nil }}
	_, err = Load("platelayer.yaml", out, opt)
	var problems Problems
	errors.As(err, &problems)
	for _, p := range problems {
		switch {
		case strings.HasPrefix(p.Message, "build is not available"):
		case strings.HasPrefix(p.Message, "variable ") && strings.Contains(p.Message, " is not set"):
		case strings.Contains(told, p.Message):
		default:
			t.Errorf("check refuses what import has written: %s\n%s\nand the report is\n%s", p, out, told)
		}
	}
	return string(out), told
}

// TestImportKeys: each service key of the compose specification that the table
// in the reference calls taken is in the imported station as it was; each of
// the others is in the report, or made into what clusters and stations have.
func TestImportKeys(t *testing.T) {
	const rest = "  db: {image: db}\n  base: {image: base, init: true}\nvolumes: {data: }\nconfigs: {site: {file: ./s}}\nsecrets: {key: {file: ./k}}\nnetworks: {n: }\n"
	examples := map[string]string{"depends_on": "depends_on: [db]", "extends": "extends: base"}
	converted := []string{"networks", "links", "container_name"}
	taken := map[string]bool{}
	for _, k := range keyTable()[stationLevel] {
		if slices.Contains(notCompose(), k.name) {
			continue
		}
		taken[k.name] = true
		t.Run(k.name, func(t *testing.T) {
			example := k.example
			if e, ok := examples[k.name]; ok {
				example = e
			}
			image := "image: x\n    "
			if k.name == "image" {
				image = ""
			}
			compose := "services:\n  web:\n    " + image + strings.ReplaceAll(example, "\n", "\n    ") + "\n" + rest
			text, report := imported(t, compose)
			var in, out struct {
				Services map[string]map[string]any
				Clusters map[string]struct{ Stations map[string]map[string]any }
			}
			if err := yaml.Unmarshal([]byte(compose), &in); err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal([]byte(text), &out); err != nil {
				t.Fatal(err)
			}
			got, want := out.Clusters["default"].Stations["web"], in.Services["web"]
			if k.name == "extends" {
				delete(want, "extends")
				want["init"] = true
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("the service is %v and the station %v\n%s", want, got, report)
			}
		})
	}
	data, err := os.ReadFile("testdata/compose-service-keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(data)) {
		if taken[name] || slices.Contains(converted, name) {
			continue
		}
		_, report := imported(t, "services:\n  web:\n    "+name+": host\n"+rest)
		if !strings.Contains(report, "compose.yml:3:5: service web: "+name+" is ") && !strings.Contains(report, "service web: "+name+" \"host\" is left out") {
			t.Errorf("the report says nothing of %s:\n%s", name, report)
		}
		if !strings.Contains(report, "  hint: ") {
			t.Errorf("%s has no hint:\n%s", name, report)
		}
	}
}

// TestImportElsewhere: a topology in another folder names the same files.
func TestImportElsewhere(t *testing.T) {
	opt := importOptions()
	opt.Dir = "/srv/here"
	text, _, err := Import("/srv/there/compose.yml", []byte(`services:
  a: {volumes: ["./x:/x", "../y:/y", "/z:/z", "v:/v", "${D}/w:/w", {type: bind, source: b, target: /b}], env_file: [e.env, {path: f.env}]}
  b: {env_file: g.env}
volumes: {v: }
configs: {c: {file: c.conf}}
`), opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"../there/x:/x"`, `"../y:/y"`, `"/z:/z"`, `"v:/v"`, `"${D}/w:/w"`, "source: ../there/b,", "[../there/e.env, {path: ../there/f.env}]", "env_file: ../there/g.env", "file: ../there/c.conf"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestImportExample: with its images replaced, the example is a topology;
// ci/examples brings it up.
func TestImportExample(t *testing.T) {
	data, err := os.ReadFile("../examples/compose/docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := Import("../examples/compose/docker-compose.yml", data, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`image: .*`).ReplaceAll(text, []byte("rootfs: host"))
	top, err := Load("../examples/compose/platelayer.yaml", text, Options{ReadFile: os.ReadFile})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var ids []string
	for _, c := range top.Clusters {
		for _, s := range c.Stations {
			ids = append(ids, s.ID())
			if s.Rootfs != "host" || s.Healthcheck == nil {
				t.Errorf("%s has rootfs %q and healthcheck %v", s.ID(), s.Rootfs, s.Healthcheck)
			}
		}
	}
	if want := []string{"front/lb", "front/web1", "front/web2", "back/db", "back/cache"}; !slices.Equal(ids, want) {
		t.Errorf("the stations are %v, not %v", ids, want)
	}
}

// TestImportOver: further files are laid over the first as compose does it.
func TestImportOver(t *testing.T) {
	opt := importOptions()
	opt.ReadFile = func(path string) ([]byte, error) {
		return map[string][]byte{
			"/over.yml": []byte("services:\n  web: {environment: [B=3], command: [b], volumes: ['./y:/x', './z:/z'], tty: !reset null}\n  new: {networks: [n], nonsense: 1}\nnetworks: {n: }\n"),
			"/last.yml": []byte("services: {web: {env_file: a.env, labels: !override {c: d}, networks: [n]}}\n"),
			"/bad.yml":  []byte("[]"),
		}[path], nil
	}
	const compose = "services:\n  web:\n    environment: {A: 1, B: 2}\n    command: [a, b]\n    volumes: ['./x:/x', './w:/w']\n    tty: true\n    labels: {a: b}\n"
	opt.Over = []string{"/over.yml", "/last.yml"}
	text, left, err := Import("compose.yml", []byte(compose), opt)
	if err != nil {
		t.Fatal(err)
	}
	const want = `clusters:
  n:
    stations:
      web:
        environment:
          A: 1
          B: "3"
        command: [b]
        volumes: ['./y:/x', './w:/w', './z:/z']
        labels: {c: d}
        env_file: a.env
      new: {}
`
	if string(text) != want {
		t.Errorf("the topology is\n%s", text)
	}
	if len(left) != 1 || !strings.HasSuffix(left[0].File, "over.yml") || left[0].Line != 3 {
		t.Errorf("the report is\n%v", left)
	}
	opt.Over = []string{"/bad.yml"}
	if text, _, err := Import("compose.yml", []byte(compose), opt); err == nil {
		t.Errorf("a file that is no compose file gives\n%s", text)
	}
}

// TestComposeKeys: each service key of the compose specification is taken or
// refused with a reason, and the table in the reference has no other.
func TestComposeKeys(t *testing.T) {
	data, err := os.ReadFile("testdata/compose-service-keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(string(data))
	taken := map[string]bool{}
	for _, k := range keyTable()[stationLevel] {
		taken[k.name] = true
		if !slices.Contains(known, k.name) && !slices.Contains(notCompose(), k.name) {
			t.Errorf("%s is neither compose's nor known as ours", k.name)
		}
	}
	foreign := foreignKeys(stationLevel)
	for _, name := range known {
		if taken[name] == (foreign[name] != "") {
			t.Errorf("%s is taken: %v, refused: %q", name, taken[name], foreign[name])
		}
		if !strings.Contains(Reference(), "\n| `"+name+"` | ") {
			t.Errorf("%s is not in the table", name)
		}
	}
	for name := range foreign {
		if !slices.Contains(known, name) {
			t.Errorf("%s is refused, but is not in the list of compose's keys", name)
		}
	}
}
