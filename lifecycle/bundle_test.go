package lifecycle

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
	"platelayer/topology"
)

// crafted is a bundle of somebody's who means harm.
type crafted struct {
	config string
	parts  map[string][]byte // tars by title; a title may have a number behind #
	change func(files map[string][]byte)
}

func tarOf(entries ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.Uname // the content, where there is some
		h.Uname, h.Size = "", int64(len(h.Uname))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		_, _ = w.Write([]byte(content))
	}
	_ = w.Close()
	return b.Bytes()
}

func (c *crafted) write(t *testing.T, path string) {
	t.Helper()
	files := map[string][]byte{}
	blob := func(b []byte) string {
		h, _, _ := v1.SHA256(bytes.NewReader(b))
		files["blobs/sha256/"+h.Hex] = b
		return fmt.Sprintf(`"digest":%q,"size":%d`, h, len(b))
	}
	var layers []string
	for title, b := range c.parts {
		name, _, _ := strings.Cut(title, "#")
		layers = append(layers, fmt.Sprintf(`{"mediaType":"x",%s,"annotations":{"org.opencontainers.image.title":%q}}`, blob(b), name))
	}
	const kind = "application/vnd.platelayer.bundle.v1"
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":%q,"config":{"mediaType":"%s+json",%s},"layers":[%s]}`,
		kind, kind, blob([]byte(c.config)), strings.Join(layers, ","))
	files["index.json"] = fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s,"artifactType":%q}]}`, blob([]byte(manifest)), kind)
	files["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	if c.change != nil {
		c.change(files)
	}
	var all []tar.Header
	for name, b := range files {
		all = append(all, tar.Header{Name: name, Uname: string(b)})
	}
	if err := os.WriteFile(path, tarOf(all...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A bundle writes nowhere but into its folder, and a bad one nothing at all.
func TestHostileBundles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it gives files owners")
	}
	const config = `{"version":1,"name":"t","file":"p.yaml","images":[]}`
	file := func(name, text string) tar.Header { return tar.Header{Name: name, Uname: text} }
	topologyFile := file("p.yaml", "name: t\nclusters: {c: {stations: {a: }}}\nvolumes: {data: }\n")
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	hard := func(name, to string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to} }
	dev := func(kind byte) tar.Header { return tar.Header{Typeflag: kind, Name: "node", Devmajor: 8} }
	of := func(entries ...tar.Header) map[string][]byte {
		return map[string][]byte{"files": tarOf(append(entries, topologyFile)...)}
	}
	with := func(entries ...tar.Header) map[string][]byte {
		return map[string][]byte{"files": tarOf(topologyFile), "folders": tarOf(entries...)}
	}
	bound := func(station string, entries ...tar.Header) map[string][]byte {
		return map[string][]byte{"files": tarOf(file("p.yaml", "name: t\nclusters: {c: {stations: {a: {"+station+"}}}}\n")), "folders": tarOf(entries...)}
	}
	said := func(more string) string { return strings.Replace(config, `"images":[]`, more, 1) }
	other := `"digest":"sha256:` + strings.Repeat("0", 64) + `"`
	for _, c := range []struct {
		what, want string
		crafted
	}{
		{"good", "", crafted{config, of(file("sub/x", "x")), nil}},
		{"good, with folders", "", crafted{config, with(link("inside", "/etc/passwd"), file("d/x", "x"), hard("d/y", "d/x")), nil}},
		{"upwards", "leads upwards", crafted{config, of(file("../escaped", "x")), nil}},
		{"absolute", "absolute", crafted{config, of(file("/tmp/escaped", "x")), nil}},
		{"link among files", "neither a regular file nor a folder", crafted{config, of(link("x", "/etc/passwd")), nil}},
		{"hard link among files", "neither a regular file nor a folder", crafted{config, of(hard("x", "p.yaml")), nil}},
		{"FIFO among files", "neither a regular file nor a folder", crafted{config, of(tar.Header{Typeflag: tar.TypeFifo, Name: "x"}), nil}},
		{"topology file that is a link", "twice", crafted{config, with(link("p.yaml", "/etc/passwd")), nil}},
		{"through a link out", "leads out of", crafted{config, with(link("out", "../../.."), file("out/escaped", "x")), nil}},
		{"file through another part's link", "leads out of", crafted{config, map[string][]byte{"files": tarOf(topologyFile, file("out/escaped", "x")), "folders": tarOf(link("out", "../.."))}, nil}},
		{"volume through a link", `"out/x" is a link that leads out`, crafted{config, bound("volumes: ['./out/x:/x']", link("out", "/etc")), nil}},
		{"volume through a link, made later", `"out" is a link that leads out`, crafted{config, bound("volumes: ['./out:/x']", link("out", "/var/not-yet")), nil}},
		{"root through a link", `"out" is a link that leads out`, crafted{config, bound("command: x, rootfs: ./out", link("out", "/")), nil}},
		{"variables through a link", `"out/os-release" is a link that leads out`, crafted{config, bound("env_file: [{path: ./out/os-release, format: raw}]", link("out", "/etc")), nil}},
		{".env through a link", `".env" is a link that leads out`, crafted{config, with(link(".env", "/etc/hosts")), nil}},
		{"good, with folders behind links", "", crafted{config, bound("volumes: ['./in:/x']", link("in", "d"), file("d/x", "x")), nil}},
		{"volume twice", "twice", crafted{said(`"images":[],"volumes":["data","data"]`), map[string][]byte{"files": tarOf(topologyFile), "volume:data#1": tarOf(), "volume:data#2": tarOf()}, nil}},
		{"hard link out", "", crafted{config, with(hard("x", "../../escaped")), nil}},
		{"hard link to nothing", "not there", crafted{config, with(hard("x", "etc/passwd")), nil}},
		{"device", "device node", crafted{config, with(dev(tar.TypeBlock)), nil}},
		{"whiteout", "means something else", crafted{config, with(file(".wh.x", "")), nil}},
		{"twice", "twice", crafted{config, of(file("x", "1"), file("x", "2")), nil}},
		{"no topology file", "no topology file", crafted{config, map[string][]byte{"files": tarOf(file("x", ""))}, nil}},
		{"no files", "has the parts", crafted{config, map[string][]byte{}, nil}},
		{"files twice", "has the parts", crafted{config, map[string][]byte{"files#1": tarOf(topologyFile), "files#2": tarOf(file("x", ""))}, nil}},
		{"unknown part", "has the parts", crafted{config, map[string][]byte{"files": tarOf(topologyFile), "more": tarOf()}, nil}},
		{"volume that is not said", "has the parts", crafted{config, map[string][]byte{"files": tarOf(topologyFile), "volume:data": tarOf()}, nil}},
		{"volume that no file has", "has no volume", crafted{said(`"images":[],"volumes":["../x"]`), map[string][]byte{"files": tarOf(topologyFile), "volume:../x": tarOf()}, nil}},
		{"volume that leads out", "leads upwards", crafted{said(`"images":[],"volumes":["data"]`), map[string][]byte{"files": tarOf(topologyFile), "volume:data": tarOf(file("../../escaped", ""))}, nil}},
		{"file elsewhere", "not a topology file's name", crafted{strings.Replace(config, "p.yaml", "../p.yaml", 1), of(), nil}},
		{"file that steers a terminal", "not a topology file's name", crafted{strings.Replace(config, "p.yaml", `\u001b]0;x\u0007`, 1), map[string][]byte{"files": tarOf(file("\x1b]0;x\a", "name: t\nclusters: {c: {stations: {a: }}}\n"))}, nil}},
		{"name that leads out", "not a topology's name", crafted{strings.Replace(config, `"t"`, `"../t"`, 1), of(), nil}},
		{"version", "version 2", crafted{strings.Replace(config, "1", "2", 1), of(), nil}},
		{"unknown key", "unknown field", crafted{said(`"images":[],"run":"x"`), of(), nil}},
		{"no JSON", "not valid", crafted{"{", of(), nil}},
		{"image that is missing", "", crafted{said(`"images":[{"name":"docker.io/library/a:1",` + other + `}]`), of(), nil}},
		{"image by another's digest", "is said to be", crafted{said(`"images":[{"name":"docker.io/library/a@sha256:` + strings.Repeat("1", 64) + `",` + other + `}]`), of(), nil}},
		{"image without a name", "not an image", crafted{said(`"images":[{"name":"../x",` + other + `}]`), of(), nil}},
		{"image twice", "twice", crafted{said(`"images":[{"name":"docker.io/library/a:1",` + other + `},{"name":"docker.io/library/a:1",` + other + `}]`), of(), nil}},
		{"changed on the way", "digest", crafted{config, of(file("x", "hello")), func(files map[string][]byte) {
			for name, b := range files {
				files[name] = bytes.ReplaceAll(b, []byte("hello"), []byte("HELLO"))
			}
		}}},
		{"lost on the way", "lacks", crafted{config, of(), func(files map[string][]byte) {
			for name, b := range files {
				if bytes.Contains(b, []byte("clusters")) {
					delete(files, name)
				}
			}
		}}},
		{"no bundle", "not a bundle", crafted{config, of(), func(files map[string][]byte) { files["index.json"] = []byte(`{"schemaVersion":2,"manifests":[]}`) }}},
		{"two bundles", "two bundles", crafted{config, of(), func(files map[string][]byte) {
			var index map[string]any
			if json.Unmarshal(files["index.json"], &index) != nil {
				panic("index")
			}
			index["manifests"] = append(index["manifests"].([]any), index["manifests"].([]any)...)
			files["index.json"], _ = json.Marshal(index)
		}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			work := t.TempDir()
			if err := os.Mkdir(work+"/in", 0o755); err != nil {
				t.Fatal(err)
			}
			c.write(t, work+"/x.bundle")
			f, err := os.Open(work + "/x.bundle")
			if err != nil {
				t.Fatal(err)
			}
			l := NewLayout(work + "/state")
			load := func(path string) (t *topology.Topology, read []string, err error) {
				text, err := os.ReadFile(path)
				if err != nil {
					return nil, nil, err
				}
				t, err = topology.Load(path, text, topology.Options{ReadFile: func(path string) ([]byte, error) {
					read = append(read, path)
					return os.ReadFile(path)
				}})
				return t, read, err
			}
			_, _, err = LoadBundle(context.Background(), l, f, BundleLoadOptions{Dir: work + "/in/project", Load: load})
			if strings.HasPrefix(c.what, "good") {
				info, statErr := os.Stat(work + "/in/project")
				if err != nil || statErr != nil || info.Mode().Perm() != 0o700 {
					t.Errorf("got %v, %v", err, info)
				}
				return
			}
			wrong := new(image.BadImageError)
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			_ = filepath.WalkDir(work, func(path string, d fs.DirEntry, _ error) error {
				rel, _ := filepath.Rel(work, path)
				if strings.HasPrefix(rel, "state/lib/images") || rel == "." || rel == "in" || rel == "x.bundle" || d.IsDir() && strings.HasPrefix("state/lib/volumes", rel) {
					return nil
				}
				t.Errorf("%s was left", rel)
				return nil
			})
			if left, _ := filepath.Glob(work + "/state/lib/images/blobs/sha256/*"); len(left) > 0 {
				t.Errorf("left in the store: %s", left)
			}
		})
	}
}
