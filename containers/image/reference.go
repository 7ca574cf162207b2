package image

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// Reference is the name of an image, with all that people leave out: "nginx" is
// docker.io/library/nginx:latest.
type Reference struct {
	Registry   string // docker.io, registry.example:5000
	Repository string // library/nginx
	Tag        string // "" with a digest
	Digest     string // sha256:HEX, or ""
}

// dockerHub is how people, and the names of images, call the registry that
// go-containerregistry knows by its address.
const dockerHub = "docker.io"

// ParseReference reads an image's name. A tag beside a digest is left out, as
// the digest says it all.
func ParseReference(text string) (Reference, error) {
	r, err := name.ParseReference(text, name.WeakValidation)
	if err != nil {
		return Reference{}, fmt.Errorf("%q is not an image's name: %w", shorten(text), err)
	}
	ref := Reference{Registry: r.Context().RegistryStr(), Repository: r.Context().RepositoryStr()}
	if ref.Registry == name.DefaultRegistry {
		ref.Registry = dockerHub
	}
	if id := r.Identifier(); strings.Contains(id, ":") {
		ref.Digest = id
	} else {
		ref.Tag = id
	}
	return ref, nil
}

// String is the whole name.
func (r Reference) String() string {
	return r.Registry + "/" + r.Repository + r.suffix()
}

func (r Reference) suffix() string {
	if r.Digest != "" {
		return "@" + r.Digest
	}
	return ":" + r.Tag
}

// Short is the name as people write it.
func (r Reference) Short() string {
	repository := r.Registry + "/" + r.Repository
	if r.Registry == dockerHub {
		repository = strings.TrimPrefix(r.Repository, "library/")
	}
	return repository + r.suffix()
}
