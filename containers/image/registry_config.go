package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"gopkg.in/yaml.v3"
)

// RegistriesFile is where a machine's administrator says how its registries
// are reached.
const RegistriesFile = "/etc/platelayer/registries.yaml"

// Registries is the content of that file.
type Registries struct {
	// PlainHTTP are the registries (host or host:port) that are spoken to
	// without TLS.
	PlainHTTP []string `yaml:"plain_http"`
	// Mirrors are asked in their order before the registry itself: URLs of
	// which the path comes before the repository's name.
	Mirrors map[string][]string `yaml:"mirrors"`
}

// ReadRegistries reads such a file; one that is not there says nothing.
func ReadRegistries(path string) (Registries, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Registries{}, nil
	}
	if err != nil {
		return Registries{}, fmt.Errorf("cannot read how registries are reached: %w", err)
	}
	defer f.Close()
	r, err := parseRegistries(io.LimitReader(f, maxDocument))
	if err != nil {
		return Registries{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func parseRegistries(from io.Reader) (Registries, error) {
	var r Registries
	d := yaml.NewDecoder(from)
	d.KnownFields(true)
	if err := d.Decode(&r); err != nil && err != io.EOF {
		return r, ofKeys(err)
	}
	for n, host := range r.PlainHTTP {
		r.PlainHTTP[n] = strings.ToLower(host)
		if err := checkRegistryHost(host); err != nil {
			return r, fmt.Errorf("plain_http: %w", err)
		}
	}
	for host, mirrors := range maps.Clone(r.Mirrors) {
		if err := checkRegistryHost(host); err != nil {
			return r, fmt.Errorf("mirrors: %w", err)
		}
		r.Mirrors[strings.ToLower(host)] = mirrors
		for _, m := range mirrors {
			if _, err := parseMirror(m); err != nil {
				return r, fmt.Errorf("mirrors: %s: %w", host, err)
			}
		}
	}
	return r, nil
}

// ofKeys words what the decoder says of a key by the file, not by our types.
func ofKeys(err error) error {
	var wrong *yaml.TypeError
	if !errors.As(err, &wrong) {
		return err
	}
	line, what, _ := strings.Cut(wrong.Errors[0], ": ")
	if key, unknown := strings.CutPrefix(what, "field "); unknown {
		key, _, _ = strings.Cut(key, " not found in type ")
		return fmt.Errorf("%s: unknown key %q: there are plain_http and mirrors", line, shorten(key))
	}
	return fmt.Errorf("%s: plain_http is a list of registries, and mirrors has a list of URLs for each registry", line)
}

func checkRegistryHost(host string) error {
	if lower := strings.ToLower(host); lower == name.DefaultRegistry || lower == hubAddress {
		return fmt.Errorf("%q is called docker.io", host)
	}
	if _, err := name.NewRegistry(host, name.StrictValidation); err != nil || strings.Contains(host, "/") {
		return fmt.Errorf("%q is not a registry: write host or host:port", shorten(host))
	}
	return nil
}

// parseMirror reads a mirror's URL.
func parseMirror(text string) (*url.URL, error) {
	if strings.Contains(text, "@") { // not shown: it may hold a password
		return nil, errors.New("a mirror is written without a user: credentials for it are looked for as for others")
	}
	u, err := url.Parse(text)
	if err == nil {
		u.Host = strings.ToLower(u.Host) // credentials stand under it so
	}
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not a mirror: write https://host, with a port or a path where it has one", shorten(text))
	}
	if !regexp.MustCompile(`^(/[a-z0-9._-]+)*/?$`).MatchString(u.Path) {
		return nil, fmt.Errorf("%q is not a mirror: its path is not the beginning of a repository's name", shorten(text))
	}
	return u, nil
}

// site is one that serves a repository: the registry itself or a mirror.
type site struct {
	scheme     string
	host       string // where it is reached: host or host:port
	account    string // what credentials for it are kept under
	repository string // its name there
	mirror     bool
}

// hubAddress is where docker.io is reached.
const hubAddress = "registry-1.docker.io"

// origin is the registry of a reference itself.
func (r *Registries) origin(ref Reference, plainHTTP bool) *site {
	p := &site{scheme: "https", host: ref.Registry, account: ref.Registry, repository: ref.Repository}
	if ref.Registry == dockerHub {
		p.host = hubAddress
	}
	if plainHTTP || slices.Contains(r.PlainHTTP, ref.Registry) {
		p.scheme = "http"
	}
	return p
}

// sites are all that serve a reference, in the order in which they are asked.
func (r *Registries) sites(ref Reference, plainHTTP bool) ([]*site, error) {
	var all []*site
	for _, m := range r.Mirrors[ref.Registry] {
		u, err := parseMirror(m)
		if err != nil {
			return nil, err
		}
		repository := strings.Trim(strings.TrimSuffix(u.Path, "/")+"/"+ref.Repository, "/")
		all = append(all, &site{scheme: u.Scheme, host: u.Host, account: u.Host, repository: repository, mirror: true})
	}
	return append(all, r.origin(ref, plainHTTP)), nil
}

// base is where the site is reached, whatever it is asked for.
func (p *site) base() string { return p.scheme + "://" + p.host }

// url is an address at the site: "manifests/latest", "blobs/sha256:...".
func (p *site) url(path string) string {
	return p.base() + "/v2/" + p.repository + "/" + path
}

// String is how messages call it.
func (p *site) String() string {
	if p.scheme == "http" {
		return "http://" + p.host
	}
	return p.host
}
