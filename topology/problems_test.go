package topology

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// testEnv is the environment of every test.
func testEnv(name string) (string, bool) {
	v, ok := map[string]string{"HOME": "/home/joe", "FROM_US": "it's \"us\" $HOME", "GREETING": "hello", "A": "a", "EMPTY": ""}[name]
	return v, ok
}

func testOptions() Options {
	return Options{Dir: "/srv/My Shop", LookupEnv: testEnv, ReadFile: testFile}
}

// testFile is the file system of every test.
func testFile(path string) ([]byte, error) {
	text, ok := map[string]string{
		"/srv/My Shop/web.env": "A=from file\nB=\"$A, $GREETING\"\nGREETING\n",
		"/srv/My Shop/sub/part.yaml": "name: part\nvolumes: {data: }\ntemplates: {base: {volumes: [./x:/x], tty: true}}\n" +
			"defaults: {init: true}\nclusters: {lan: {stations: {p: {extends: base, volumes: [data:/data]}}}}\n",
		"/srv/My Shop/bad.yaml":    "clusters:\n  lan: {stations: {p: {writable: tape}}}\nnonsense: 1\n",
		"/srv/My Shop/base.yaml":   "templates: {base: {tty: true}}\n",
		"/srv/My Shop/loop.yaml":   "include: [f.yaml]\n",
		"/srv/My Shop/compose.yml": "services: {web: {init: true, environment: [A=1, B=2]}}\n",
	}[path]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	}
	return []byte(text), nil
}

// TestProblems holds each file of testdata/problems.golden against the
// problems below it.
func TestProblems(t *testing.T) {
	const path = "testdata/problems.golden"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var updated strings.Builder
	for _, c := range strings.Split(string(data), "=== ")[1:] {
		name, rest, _ := strings.Cut(c, "\n")
		file, want, _ := strings.Cut(rest, "--- \n")
		var got string
		t.Run(name, func(t *testing.T) {
			opt := testOptions()
			if name == "rootfs home unset" {
				opt.LookupEnv = nil
			}
			_, err := Load("f.yaml", []byte(file), opt)
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("accepted; error %v", err)
			}
			got = problems.Error() + "\n"
			for _, p := range problems {
				if p.Hint == "" {
					t.Errorf("no hint: %s", p)
				}
			}
			if got != want && !updating() {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
		updated.WriteString("=== " + name + "\n" + file + "--- \n" + got)
	}
	if updating() {
		if err := os.WriteFile(path, []byte(updated.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTenMistakes shows that one run finds them all, each once.
func TestTenMistakes(t *testing.T) {
	data, err := os.ReadFile("testdata/ten.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Load("testdata/ten.yaml", data, testOptions())
	golden(t, "testdata/ten.problems", err.Error()+"\n")
}

func updating() bool { return flag.Lookup("update").Value.String() == "true" }

func golden(t *testing.T, path, got string) {
	t.Helper()
	if updating() {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s", path, got)
	}
}
