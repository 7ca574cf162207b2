package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// RegistryOptions say how registries are reached.
type RegistryOptions struct {
	Registries  Registries
	Credentials Credentials
	PlainHTTP   bool              // no TLS for any registry that is named, though for its mirrors
	Notice      func(text string) // called from several goroutines; may be nil
	Agent       string            // what the program calls itself
}

// Registry pulls from registries and pushes to them (OCI distribution-spec).
// The connections, and what registries asked for once, are shared by all that
// it does.
type Registry struct {
	o      RegistryOptions
	client *http.Client
	slots  chan struct{} // one for each transfer
	stall  time.Duration // in which nothing comes or goes
	piece  int64         // of an upload, in bytes, where one is too large
	pause  func(ctx context.Context, d time.Duration) error

	mu       sync.Mutex
	sessions map[string]*session
	failed   map[string]bool // mirrors that can't be reached
	waited   map[string]bool // registries of which it was told that they are waited for
}

const (
	maxTransfers = 8
	stallTime    = 60 * time.Second
	documentTime = 5 * time.Minute // for a manifest or a token, with all tries
)

// NewRegistry gives access to registries. Close ends it.
func NewRegistry(o RegistryOptions) *Registry {
	return newRegistry(o, certificateDirs(o.Credentials.User))
}

func newRegistry(o RegistryOptions, certificates []certificateDir) *Registry {
	o.Credentials.answers = &helperAnswers{known: map[string]*credential{}}
	return &Registry{
		o: o,
		client: &http.Client{
			Transport:     &hostTransport{dirs: certificates, each: map[string]*http.Transport{}},
			CheckRedirect: checkRedirect,
		},
		slots:    make(chan struct{}, maxTransfers),
		stall:    stallTime,
		piece:    pieceSize,
		pause:    pause,
		sessions: map[string]*session{},
		failed:   map[string]bool{},
		waited:   map[string]bool{},
	}
}

// Close ends the connections.
func (r *Registry) Close() { r.client.CloseIdleConnections() }

func (r *Registry) notice(text string) {
	if r.o.Notice != nil {
		r.o.Notice(text)
	}
}

// Pull brings an image of a registry into the store, and gives it the name by
// which it was asked for. The registry isn't asked for one that is there and
// pinned by its digest, and only for the digest where the name is known here.
func (r *Registry) Pull(ctx context.Context, store *Store, ref Reference, p Platform, o AddOptions) (*Image, error) {
	done, err := store.Use(ctx) // what is found here is to stay
	if err != nil {
		return nil, err
	}
	defer done()
	if i, err := store.Find(ref.String()); err == nil && store.whole(i) && fits(i, p) {
		same, err := r.means(ctx, ref, i)
		if err != nil || same && ref.Digest != "" {
			return i, err
		}
		if same {
			i.Asked = time.Now()
			return i, store.Name(ctx, ref.String(), i)
		}
	}
	m, err := r.Resolve(ctx, ref, p)
	if err != nil {
		return nil, err
	}
	parsed, err := parseManifest(m.Manifest)
	if err != nil {
		return nil, err
	}
	if err := store.room(blobsOf(parsed)); err != nil {
		return nil, err
	}
	o.Name, o.Indexes, o.Asked = ref.String(), m.indexes, time.Now()
	i, err := store.Add(ctx, m.Manifest, m, o)
	if err != nil {
		return nil, err
	}
	if !fits(i, p) {
		r.notice(fmt.Sprintf("%s is made for %s", ref.Short(), i.MadeFor()))
	}
	return i, nil
}

// means asks whether a reference still means an image: registries that count
// what is pulled don't count that. An error is that nobody can be asked.
func (r *Registry) means(ctx context.Context, ref Reference, i *Image) (bool, error) {
	if ref.Digest != "" {
		return true, nil
	}
	sites, err := r.o.Registries.sites(ref, r.o.PlainHTTP)
	if err != nil {
		return false, err
	}
	s := sites[slices.IndexFunc(sites, func(s *site) bool { return !s.mirror || !r.hasFailed(s) })]
	q := manifestRequest(s, ref.Tag)
	q.method = http.MethodHead
	response, err := r.do(ctx, q)
	if err != nil {
		if len(sites) == 1 && unreachable(err) {
			return false, err
		}
		if s.mirror && unreachable(err) {
			r.mirrorFailed(s, err)
		}
		return false, nil // to be told when it is asked for
	}
	response.Body.Close()
	digest := response.Header.Get("Docker-Content-Digest")
	return digest == i.Digest.String() || i.Index != (v1.Hash{}) && digest == i.Index.String(), nil
}

// manifestRequest asks for what a tag or a digest means.
func manifestRequest(s *site, wanted string) *request {
	var accept []string
	for _, t := range manifestTypes() {
		accept = append(accept, string(t))
	}
	return &request{method: http.MethodGet, url: s.url("manifests/" + wanted), what: "the manifest of " + s.repository + separated(wanted),
		site: s, scopes: []string{"repository:" + s.repository + ":pull"}, accept: strings.Join(accept, ", "), ok: []int{http.StatusOK}}
}

// fits tells whether a machine of a platform runs the image, for all that the image
// says.
func fits(i *Image, p Platform) bool {
	if i.Config.Architecture == "" && (i.Config.OS == "" || i.Config.OS == "linux") {
		return true // nobody said
	}
	have := Platform{Architecture: i.Config.Architecture, Variant: i.Config.Variant}.normal()
	return i.Config.OS == "linux" && slices.Contains(p.runs(), have)
}

// whole tells whether all blobs of an image are in the store.
func (s *Store) whole(i *Image) bool {
	return !slices.ContainsFunc(blobsOf(i.Manifest), func(d v1.Descriptor) bool { return !s.hasBlob(d.Digest) })
}

// room tells whether there is space for the blobs that the store lacks.
func (s *Store) room(blobs []v1.Descriptor) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return fmt.Errorf("cannot see how much space %s has: %w", s.dir, err)
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	var need int64
	for _, d := range blobs {
		if !s.hasBlob(d.Digest) {
			need += min(d.Size, s.limits.Bytes+1)
		}
		if d.Size > s.limits.Bytes {
			return bad("%s is said to have %d bytes; %d are taken", d.Digest, d.Size, s.limits.Bytes)
		}
	}
	if need > free {
		return fmt.Errorf("it has %d bytes that are not here, and %s has %d free: %w", need, s.dir, free, unix.ENOSPC)
	}
	return nil
}

// Remote is an image in a registry.
type Remote struct {
	Reference Reference
	Manifest  []byte
	Digest    v1.Hash
	Index     v1.Hash // that it was chosen from; zero without one

	registry *Registry
	sites    []*site
	indexes  [][]byte // from Index to the one that lists the image

	mu     sync.Mutex
	served map[v1.Hash]*site          // who gave a blob last
	bad    map[v1.Hash]map[*site]bool // who gave something else in its place
}

// manifestTypes are what is asked for and taken.
func manifestTypes() []types.MediaType {
	return []types.MediaType{types.OCIImageIndex, types.DockerManifestList, types.OCIManifestSchema1, types.DockerManifestSchema2}
}

const (
	maxDepth   = 3  // of indexes in indexes
	mirrorTry  = 2  // times that a mirror is asked
	originTry  = 6  // times that a registry is asked
	connectTry = 3  // times that one is tried to reach
	maxAsked   = 60 // seconds that a registry may ask to wait
	firstPause = 500 * time.Millisecond
)

// Resolve finds out what a reference means now for a platform: nothing but its
// manifest is fetched. An image that the platform doesn't run is a
// NoPlatformError.
func (r *Registry) Resolve(ctx context.Context, ref Reference, p Platform) (*Remote, error) {
	sites, err := r.o.Registries.sites(ref, r.o.PlainHTTP)
	if err != nil {
		return nil, err
	}
	m := &Remote{Reference: ref, registry: r, sites: sites, served: map[v1.Hash]*site{}, bad: map[v1.Hash]map[*site]bool{}}
	d := v1.Descriptor{Size: -1}
	if ref.Digest != "" {
		if d.Digest, err = v1.NewHash(ref.Digest); err != nil {
			return nil, fmt.Errorf("%q: %w", ref.Short(), err)
		}
		if err := checkHash(d.Digest); err != nil {
			return nil, err
		}
	}
	for depth := 0; ; depth++ {
		text, kind, err := m.manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		m.Digest = hashOf(text)
		if kind.IsImage() {
			m.Manifest = text
			return m, nil
		}
		if depth == maxDepth {
			return nil, bad("%s: its indexes list indexes, more than %d deep", ref.Short(), maxDepth)
		}
		if depth == 0 {
			m.Index = m.Digest
		}
		m.indexes = append(m.indexes, text)
		index, err := parseIndex("its index", text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ref.Short(), err)
		}
		chosen := choosePlatform(index, p)
		if chosen == nil {
			return nil, &NoPlatformError{Name: ref.Short(), Wanted: p, Have: platformsOf(index)}
		}
		d = *chosen
	}
}

// manifestKind tells what a document is by what it holds, which must be one
// thing only (OCI image-spec, "mediaType" property; CVE-2021-41190).
func manifestKind(text []byte) (types.MediaType, error) {
	var doc struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("<")) {
		return "", bad("its manifest is not valid: what came is a web page, of a proxy, of a sign-in or of what is no registry")
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return "", bad("its manifest is not valid: %v", err)
	}
	isIndex, isImage := doc.Manifests != nil, doc.Config != nil || doc.Layers != nil
	switch {
	case doc.SchemaVersion == 1 || doc.FSLayers != nil:
		return "", bad("it is stored in Docker's old form (schema 1), which nobody makes any more: push it anew")
	case doc.SchemaVersion != 2:
		return "", bad("its manifest is of schema version %d", doc.SchemaVersion)
	case isIndex && isImage:
		return "", bad("its manifest is an image's and an index in one")
	case isIndex && (doc.MediaType == "" || doc.MediaType.IsIndex()):
		return types.OCIImageIndex, nil
	case isImage && (doc.MediaType == "" || doc.MediaType.IsImage()):
		return types.OCIManifestSchema1, nil
	}
	return "", bad("a manifest of the type %q is not an image's", shorten(string(doc.MediaType)))
}

// manifest fetches a manifest by its digest or, where that is zero, what the
// reference's tag means.
func (m *Remote) manifest(ctx context.Context, d v1.Descriptor) (text []byte, kind types.MediaType, err error) {
	err = m.eachSite(ctx, nil, func(s *site) error {
		if text, err = m.manifestFrom(ctx, s, d); err != nil {
			return err
		}
		if kind, err = manifestKind(text); err != nil {
			return fmt.Errorf("%s: %w", m.Reference.Short(), err)
		}
		return nil
	})
	return text, kind, err
}

// eachSite asks one site after the other until one can do what is asked.
func (m *Remote) eachSite(ctx context.Context, not map[*site]bool, try func(*site) error) error {
	var last error
	for _, s := range m.sites {
		if s.mirror && (not[s] || m.registry.hasFailed(s)) {
			continue
		}
		last = try(s)
		if last == nil || ctx.Err() != nil || !s.mirror {
			return last
		}
		m.registry.mirrorFailed(s, last)
	}
	return last
}

func (m *Remote) manifestFrom(ctx context.Context, s *site, d v1.Descriptor) ([]byte, error) {
	wanted := m.Reference.Tag
	if d.Digest != (v1.Hash{}) {
		wanted = d.Digest.String()
	}
	q := manifestRequest(s, wanted)
	ctx, cancel := context.WithTimeout(ctx, documentTime)
	defer cancel()
	for try := 1; ; try++ {
		text, said, err := m.registry.document(ctx, q)
		if err != nil {
			if try < 3 && isBroken(err) {
				continue
			}
			return nil, err
		}
		sum := hashOf(text)
		switch {
		case d.Digest != (v1.Hash{}) && sum != d.Digest:
			return nil, bad("%s gave a manifest with the digest %s for %s", s, sum, d.Digest)
		case d.Size >= 0 && int64(len(text)) != d.Size:
			return nil, bad("the manifest %s has %d bytes, and %d by the index", sum, len(text), d.Size)
		case d.Digest == (v1.Hash{}) && strings.HasPrefix(said, "sha256:") && said != sum.String():
			return nil, bad("%s gave a manifest with the digest %s and calls it %s", s, sum, shorten(said))
		}
		return text, nil
	}
}

// separated puts what stands between a repository and a tag or a digest.
func separated(identifier string) string {
	if strings.Contains(identifier, ":") {
		return "@" + identifier
	}
	return ":" + identifier
}

// document fetches a small document whole, with the digest that the registry
// says it has.
func (r *Registry) document(ctx context.Context, q *request) (text []byte, digest string, err error) {
	response, err := r.do(ctx, q)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	if err != nil {
		return nil, "", err
	}
	if len(text) > maxDocument {
		return nil, "", bad("%s is larger than the %d bytes that a manifest may have", q.what, maxDocument)
	}
	return text, response.Header.Get("Docker-Content-Digest"), nil
}

// mirrorFailed tells that a mirror could not do what it was asked; one that
// can't be reached is not asked again, for other images either.
func (r *Registry) mirrorFailed(s *site, err error) {
	if unreachable(err) {
		r.mu.Lock()
		told := r.failed[s.String()]
		r.failed[s.String()] = true
		r.mu.Unlock()
		if told {
			return
		}
	}
	r.notice(fmt.Sprintf("the mirror %s is passed over: %v", s, err))
}

func (r *Registry) hasFailed(s *site) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed[s.String()]
}
