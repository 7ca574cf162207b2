package lifecycle

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"platelayer/policy"
	"platelayer/topology"
)

// What `up` has looked at leads elsewhere later: through a link in the place of a
// folder, of a file or of the project itself.
func TestConfine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: policies are its own")
	}
	const text = "clusters: {lan: {stations: {a: {rootfs: ./root, command: x, volumes: [./dir:/x, /y], configs: [c]}}}}\nconfigs: {c: {file: ./file}}"
	for _, c := range []struct {
		name, policy, refused string
		change                func(project string) error
	}{
		{"as it was", "project", "", func(string) error { return nil }},
		{"any", "any", "", func(p string) error { return replace(p+"/dir", "/etc") }},
		{"folder", "project", "/dir (/etc) is outside the project's folder", func(p string) error { return replace(p+"/dir", "/etc") }},
		{"file", "project", "/file (/etc/passwd) is outside the project's folder", func(p string) error { return replace(p+"/file", "/etc/passwd") }},
		{"rootfs", "project", "/root (/) is outside the project's folder", func(p string) error { return replace(p+"/root", "/") }},
		{"within", "project", "", func(p string) error { return replace(p+"/dir", p+"/root") }},
		{"project", "project", "is gone, or has become a link", func(p string) error { return replace(p, "/etc") }},
	} {
		state := t.TempDir()
		project := filepath.Join(state, "project")
		file := filepath.Join(state, "policy.yaml")
		for _, err := range []error{os.MkdirAll(project+"/dir", 0o755), os.Mkdir(project+"/root", 0o755), os.WriteFile(project+"/file", []byte("mine"), 0o600),
			os.WriteFile(file, []byte("binds: "+c.policy), 0o600), os.Chmod(filepath.Dir(state), 0o755)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		top, err := topology.Load("f.yaml", []byte(text), topology.Options{Name: "t", Dir: project})
		if err != nil {
			t.Fatal(err)
		}
		l := Layout{Lib: state, Run: state, Policies: []string{file}}
		intent := &Intent{Topology: top, Project: project}
		if err := c.change(project); err != nil {
			t.Fatal(err)
		}
		s := top.Stations()[0]
		r := &root{spec: site{layout: l}.station(top, s), station: s}
		err = confine(l, intent.project(), r)
		var refused *policy.RefusedError
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.refused == "":
			if limited := c.policy != "any"; r.spec.Mounts[0].NoLinks != limited || r.spec.Mounts[1].NoLinks || r.spec.Root.NoLinks != limited {
				t.Errorf("%s: got %+v, %+v", c.name, r.spec.Mounts, r.spec.Root)
			}
		case !errors.As(err, &refused) || !strings.Contains(err.Error(), c.refused):
			t.Errorf("%s: got %v, want %q", c.name, err, c.refused)
		}
		if c.name != "as it was" {
			continue
		}
		if text, err := r.read(project + "/file"); string(text) != "mine" {
			t.Errorf("read %q, %v", text, err)
		}
		if err := replace(project+"/file", "/etc/passwd"); err != nil {
			t.Fatal(err)
		}
		if text, err := r.read(project + "/file"); err == nil {
			t.Errorf("read %q through a link", text)
		}
	}
}

// replace puts a link in the place of what there is.
func replace(path, to string) error {
	return errors.Join(os.Rename(path, path+".was"), os.Symlink(to, path))
}
