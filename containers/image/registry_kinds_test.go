package image

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestPullKinds pulls what registries keep: as Docker and others write it.
func TestPullKinds(t *testing.T) {
	layers := [][]byte{makeTar(t, file("a", "x")), makeTar(t), {}}
	m := makeImage(t, v1.Config{}, layers...) // packed by turns: not, gzip, zstd
	empty := makeImage(t, v1.Config{}, []byte{}, []byte{})
	as := func(manifest, layer types.MediaType, change func(*v1.Manifest)) []byte {
		p := m.parsed(t)
		p.MediaType = manifest
		for n := range p.Layers {
			p.Layers[n].MediaType = layer
		}
		if change != nil {
			change(p)
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	nothing := func(*v1.Manifest) {}
	docker := as(types.DockerManifestSchema2, types.DockerLayer, nothing)
	oci := as(types.OCIManifestSchema1, types.OCILayerZStd, nothing)
	attestation := as(types.OCIManifestSchema1, "application/vnd.in-toto+json", nothing)
	unknown := &v1.Platform{OS: "unknown", Architecture: "unknown"}
	linux := &v1.Platform{OS: "linux", Architecture: "amd64"}
	all := map[string][]byte{}
	index := func(kind types.MediaType, entries ...v1.Descriptor) []byte {
		text, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: kind, Manifests: entries})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	of := func(kind types.MediaType, text []byte, p *v1.Platform) v1.Descriptor {
		all[sumOf(text).String()] = text
		return v1.Descriptor{MediaType: kind, Size: int64(len(text)), Digest: sumOf(text), Platform: p}
	}
	untyped := as(types.DockerManifestSchema2, types.DockerLayer, func(p *v1.Manifest) { p.Config.MediaType = "application/octet-stream" })
	inner := index(types.OCIImageIndex, of(types.OCIManifestSchema1, oci, linux))
	for _, test := range []struct {
		name    string
		text    []byte
		want    []byte
		problem string
	}{
		{"docker", docker, docker, ""},
		{"oci", oci, oci, ""},
		{"no media type", as("", types.OCILayer, nothing), as("", types.OCILayer, nothing), ""},
		{"no type of configuration", untyped, untyped, ""},
		{"empty layers", empty.manifest, empty.manifest, ""},
		{"manifest list", index(types.DockerManifestList, of(types.DockerManifestSchema2, docker, linux)), docker, ""},
		{"buildx", index(types.OCIImageIndex, of(types.OCIManifestSchema1, attestation, unknown), of(types.OCIManifestSchema1, oci, linux)), oci, ""},
		{"attested, without a platform", index(types.OCIImageIndex, of(types.OCIManifestSchema1, attestation, unknown), of(types.OCIManifestSchema1, oci, nil)), oci, ""},
		{"attestations only", index(types.OCIImageIndex, of(types.OCIManifestSchema1, attestation, unknown)), nil, "holds no image for linux/amd64"},
		{"nested", index(types.OCIImageIndex, of(types.OCIImageIndex, inner, nil)), oci, ""},
		{"helm", as(types.OCIManifestSchema1, "application/vnd.cncf.helm.chart.content.v1.tar+gzip", func(p *v1.Manifest) {
			p.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
		}), nil, "it is not a container image but a Helm chart"},
		{"wasm", as(types.OCIManifestSchema1, "application/vnd.wasm", func(p *v1.Manifest) {
			p.Config.MediaType = "application/vnd.wasm.config.v1+json"
		}), nil, `an artifact with a configuration of the type "application/vnd.wasm.config.v1+json"`},
		{"artifact", as(types.OCIManifestSchema1, "text/plain", func(p *v1.Manifest) {
			p.ArtifactType, p.Config.MediaType = "application/x.sbom", "application/vnd.oci.empty.v1+json"
		}), nil, `an artifact of the type "application/x.sbom"`},
		{"foreign", as(types.DockerManifestSchema2, types.DockerForeignLayer, func(p *v1.Manifest) {
			p.Layers[0].URLs = []string{"https://other.example/layer"}
		}), nil, "lies outside the registry"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newTestRegistry(t)
			r.offer("a", "latest", m)
			r.offer("a", "latest", empty)
			r.on(func(w http.ResponseWriter, q *http.Request) bool {
				_, wanted, found := strings.Cut(q.URL.Path, "/manifests/")
				text := all[wanted]
				if wanted == "latest" {
					text = test.text
				}
				w.Write(text)
				return found
			})
			s := newStore(t)
			i, err := newTestClient(t, RegistryOptions{PlainHTTP: true}).pull(t, s, r.host()+"/a")
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Errorf("got %v, want %q", err, test.problem)
				}
				return
			}
			if err != nil || i.Digest != sumOf(test.want) {
				t.Fatalf("got %v, %v", i, err)
			}
			if err := s.Unpack(t.Context(), i, AddOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}
