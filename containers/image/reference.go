package image

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"unicode"

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

// strict refuses what go-containerregistry takes and no registry does: parts
// that begin or end with a dot or another sign (distribution/reference).
func strict(r Reference) bool {
	alone := func(part string) bool { return part != "" && strings.Trim(part, ".-_") == part }
	host, port, _ := strings.Cut(r.Registry, ":")
	if strings.HasPrefix(host, "[") { // IPv6, whose address it has read
		host = "ip"
	}
	for part := range strings.SplitSeq(host, ".") {
		if !alone(part) {
			return false
		}
	}
	for part := range strings.SplitSeq(r.Repository, "/") {
		if !alone(part) {
			return false
		}
	}
	if _, after, found := strings.Cut(r.Registry, "]"); found {
		_, port, _ = strings.Cut(after, ":")
	}
	if strings.HasSuffix(r.Registry, ":") || strings.ContainsFunc(r.Registry, func(c rune) bool { return c > unicode.MaxASCII }) {
		return false
	}
	n, err := strconv.Atoi(cmp.Or(port, "443"))
	return err == nil && n > 0 && n < 1<<16
}

// dockerHub is how people, and the names of images, call the registry that
// go-containerregistry knows by its address.
const dockerHub = "docker.io"

// ParseReference reads an image's name. A tag beside a digest is left out, as
// the digest says it all.
func ParseReference(text string) (Reference, error) {
	whole := text
	if host, rest, found := strings.Cut(text, "/"); found && strings.ContainsAny(host, ".:") {
		whole = strings.ToLower(host) + "/" + rest // one host has one name (RFC 4343)
	}
	r, err := name.ParseReference(whole, name.WeakValidation)
	if err != nil {
		return Reference{}, fmt.Errorf("%q is not an image's name%s", shorten(text), instead(text))
	}
	ref := Reference{Registry: r.Context().RegistryStr(), Repository: r.Context().RepositoryStr()}
	if ref.Registry == name.DefaultRegistry {
		ref.Registry = dockerHub
	}
	if !strict(ref) {
		return Reference{}, fmt.Errorf("%q is not an image's name%s", shorten(text), instead(text))
	}
	if id := r.Identifier(); strings.Contains(id, ":") {
		ref.Digest = id
	} else {
		ref.Tag = id
	}
	return ref, nil
}

// instead says how a name that isn't one is written.
func instead(text string) string {
	if scheme, _, found := strings.Cut(text, "://"); found {
		return ": write it without " + shorten(scheme) + "://"
	}
	lower := strings.ToLower(text)
	if _, err := name.ParseReference(lower, name.WeakValidation); err == nil && lower != text {
		return ": write it in lower case"
	}
	return ""
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
