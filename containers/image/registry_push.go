package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// storeTime is how long a registry may be silent about what it was sent.
const storeTime = 10 * time.Minute

// push is one image on its way to a repository.
type push struct {
	registry *Registry
	store    *Store
	site     *site
	scopes   []string
	mounts   map[v1.Hash][]string // repositories of the registry that should have a blob
	options  *AddOptions
}

// Push sends an image of the store to a registry under a name, as far as it
// isn't there. It goes as it is, so that it keeps its digest, but with layers
// that are not packed packed before: what was sent is given, and has the name
// DESTINATION@DIGEST here too where it is another.
func (r *Registry) Push(ctx context.Context, store *Store, i *Image, to Reference, o AddOptions) (*Image, error) {
	done, err := store.Use(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	o.Name = to.String()
	sent, err := store.Packed(ctx, i, o.tell)
	if err != nil {
		return nil, err
	}
	if to.Digest != "" && to.Digest != sent.Digest.String() {
		return nil, fmt.Errorf("the image to be pushed is %s: push it to a tag", sent.Digest)
	}
	text, err := store.document(sent.Digest)
	if err != nil {
		return nil, err
	}
	p := &push{registry: r, store: store, site: r.o.Registries.origin(to, r.o.PlainHTTP), options: &o}
	if p.mounts, err = store.mountable(to); err != nil {
		return nil, err
	}
	p.scopes = []string{"repository:" + p.site.repository + ":pull,push"}
	if err := p.blobs(ctx, blobsOf(sent.Manifest)); err != nil {
		return nil, err
	}
	if err := p.manifest(ctx, to, sent, text); err != nil {
		return nil, err
	}
	if sent.Digest != i.Digest {
		to.Tag, to.Digest = "", sent.Digest.String()
		if err := store.Name(ctx, to.String(), sent); err != nil {
			return nil, err
		}
	}
	return sent, nil
}

// mountable lists the other repositories of a registry from which images here
// are named, by the blobs they have.
func (s *Store) mountable(to Reference) (map[v1.Hash][]string, error) {
	const most = 3 // repositories to try for a blob
	all, err := s.List()
	if err != nil && all == nil {
		return nil, err
	}
	from := map[v1.Hash][]string{}
	for _, i := range all {
		ref, err := ParseReference(i.Name)
		if err != nil || ref.Registry != to.Registry || ref.Repository == to.Repository {
			continue
		}
		for _, d := range blobsOf(i.Manifest) {
			if len(from[d.Digest]) < most {
				from[d.Digest] = append(from[d.Digest], ref.Repository)
			}
		}
	}
	return from, nil
}

// blobs sends what the registry lacks, several at a time.
func (p *push) blobs(ctx context.Context, all []v1.Descriptor) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	for _, d := range all {
		p.options.tell(Progress{Digest: d.Digest, Total: d.Size, Stage: StageWaiting})
		wait.Go(func() {
			select {
			case p.registry.slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-p.registry.slots }()
			stage, err := p.blob(ctx, d)
			if err != nil {
				cancel(fmt.Errorf("cannot push %s: %w", d.Digest, err))
				return
			}
			p.options.tell(Progress{Digest: d.Digest, Done: d.Size, Total: d.Size, Stage: stage})
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

func (p *push) request(method, url, what string, ok ...int) *request {
	return &request{method: method, url: url, what: what, site: p.site, scopes: p.scopes, ok: ok}
}

// blob makes sure that the registry has a blob, and tells how it came to it.
func (p *push) blob(ctx context.Context, d v1.Descriptor) (Stage, error) {
	name := d.Digest.String() + " of " + p.site.repository
	response, err := p.registry.do(ctx, p.request(http.MethodHead, p.site.url("blobs/"+d.Digest.String()), name, http.StatusOK))
	var told *RegistryError
	switch {
	case err == nil:
		response.Body.Close()
		return StageHere, nil
	case !errors.As(err, &told): // some say to nobody, or not to this one, what they have
		return "", err
	}
	if !p.store.hasBlob(d.Digest) {
		return "", &MissingError{d.Digest}
	}
	const tries = 4
	inPieces := false
	for try := 1; ; try++ {
		session, mounted, err := p.begin(ctx, d)
		if err != nil {
			return "", err
		}
		if mounted {
			return StageMounted, nil
		}
		if inPieces {
			err = p.pieces(ctx, session, d)
		} else if err = p.send(ctx, session, d); tooLarge(err) && d.Size > p.registry.piece {
			inPieces = true
			continue
		}
		if err == nil || ctx.Err() != nil || try == tries || !passing(err) && !unauthorized(err) && !forgotten(err) {
			return StageDone, err
		}
		if err := p.registry.pause(ctx, firstPause<<try); err != nil {
			return "", err
		}
	}
}

func unauthorized(err error) bool {
	var told *RegistryError
	return errors.As(err, &told) && told.Status == http.StatusUnauthorized
}

// forgotten tells that an upload's place is gone, as where one of several
// servers answers that doesn't know of it.
func forgotten(err error) bool {
	var told *RegistryError
	return errors.As(err, &told) && told.Status == http.StatusNotFound
}

// begin opens an upload, or has the registry take the blob from another of its
// repositories: it answers 202 to that, and opens an upload, where it doesn't
// want to.
func (p *push) begin(ctx context.Context, d v1.Descriptor) (session *url.URL, mounted bool, err error) {
	what := "a place in " + p.site.repository
	for _, from := range p.mounts[d.Digest] {
		q := p.request(http.MethodPost, p.site.url("blobs/uploads/")+"?"+url.Values{"mount": {d.Digest.String()}, "from": {from}}.Encode(),
			what, http.StatusCreated, http.StatusAccepted)
		q.scopes = append([]string{"repository:" + from + ":pull"}, p.scopes...)
		response, err := p.registry.do(ctx, q)
		if err != nil { // one that may not read there
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusCreated {
			return nil, true, nil
		}
		if session, err = p.location(response); err == nil {
			return session, false, nil
		}
	}
	response, err := p.registry.do(ctx, p.request(http.MethodPost, p.site.url("blobs/uploads/"), what, http.StatusAccepted))
	if err != nil {
		return nil, false, err
	}
	response.Body.Close()
	session, err = p.location(response)
	return session, false, err
}

// location is where an upload goes. Behind a proxy some registries don't know
// that they are reached over TLS.
func (p *push) location(response *http.Response) (*url.URL, error) {
	u, err := response.Location()
	if err != nil {
		return nil, bad("%s doesn't say where to send a blob", p.site)
	}
	here := &url.URL{Scheme: p.site.scheme, Host: p.site.host}
	if u.Host == p.site.host || samePlace(u, here) {
		u.Scheme, u.Host = here.Scheme, here.Host
	}
	if u.Scheme != "https" && (u.Scheme != "http" || p.site.scheme != "http") {
		return nil, bad("%s sends uploads to %s://%s", p.site, shorten(u.Scheme), shorten(u.Host))
	}
	return u, nil
}

// send sends a blob whole.
func (p *push) send(ctx context.Context, session *url.URL, d v1.Descriptor) error {
	q := p.last(session, d)
	q.contentType, q.size, q.patience = "application/octet-stream", d.Size, storeTime
	var read *sendingBlob
	q.body = func() (io.ReadCloser, error) {
		f, err := p.store.openBlob(d.Digest)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err == nil && info.Size() != d.Size {
			err = &CorruptError{What: "blob", Digest: d.Digest, Detail: fmt.Sprintf("it has %d bytes instead of %d", info.Size(), d.Size)}
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		read = &sendingBlob{ReadCloser: f, digest: d, sum: sha256.New(), tell: p.options.tell}
		return read, nil
	}
	response, err := p.put(ctx, session, q)
	if err != nil {
		if read != nil && read.damaged() {
			return &CorruptError{What: "blob", Digest: d.Digest}
		}
		return err
	}
	return response.Body.Close()
}

// last is the request that ends an upload.
func (p *push) last(session *url.URL, d v1.Descriptor) *request {
	to := *session
	query := to.Query()
	query.Set("digest", d.Digest.String())
	to.RawQuery = query.Encode()
	return p.request(http.MethodPut, to.String(), "taking "+d.Digest.String()+" into "+p.site.repository, http.StatusCreated, http.StatusNoContent)
}

// put sends a request of an upload to where the registry has it go.
func (p *push) put(ctx context.Context, session *url.URL, q *request) (*http.Response, error) {
	ctx = p.site.sentBy(ctx, session.Host)
	if session.Host != p.site.host { // which is not to know how one signs in here
		return p.registry.once(ctx, q)
	}
	return p.registry.signedOnce(ctx, q)
}

// signedOnce sends a request that can't be sent again as it is.
func (r *Registry) signedOnce(ctx context.Context, q *request) (response *http.Response, err error) {
	if q.authorization, err = r.authorization(ctx, q.site, q.scopes, "", nil); err != nil {
		return nil, err
	}
	response, err = r.once(ctx, q)
	if told := new(RegistryError); errors.As(err, &told) {
		told.Account = q.site.account
		if told.Status == http.StatusUnauthorized && told.challenges != nil { // the token was too old: the next try has another
			if _, err := r.authorization(ctx, q.site, q.scopes, q.authorization, told.challenges); err != nil {
				return nil, err
			}
		}
	}
	return response, err
}

// sendingBlob is a blob that is read for sending, and checked on the way.
type sendingBlob struct {
	io.ReadCloser
	digest v1.Descriptor
	mu     sync.Mutex
	sum    hash.Hash
	done   int64
	told   int64
	tell   func(Progress)
}

func (b *sendingBlob) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sum.Write(p[:n])
	b.done += int64(n)
	if b.done-b.told >= 1<<20 {
		b.told = b.done
		b.tell(Progress{Digest: b.digest.Digest, Done: b.done, Total: b.digest.Size, Stage: StageSending})
	}
	return n, err
}

// damaged tells whether all was read and isn't what it should be.
func (b *sendingBlob) damaged() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done == b.digest.Size && hex.EncodeToString(b.sum.Sum(nil)) != b.digest.Digest.Hex
}

// manifest gives what was sent its name.
func (p *push) manifest(ctx context.Context, to Reference, i *Image, text []byte) error {
	wanted := to.Tag
	if to.Digest != "" {
		wanted = to.Digest
	}
	q := p.request(http.MethodPut, p.site.url("manifests/"+wanted), "taking the manifest of "+p.site.repository+separated(wanted),
		http.StatusCreated, http.StatusOK, http.StatusAccepted)
	q.contentType, q.size = string(i.Manifest.MediaType), int64(len(text))
	if q.contentType == "" {
		q.contentType = string(types.OCIManifestSchema1)
	}
	q.body = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(text))), nil }
	response, err := p.registry.do(ctx, q)
	if err != nil {
		return err
	}
	response.Body.Close()
	if said := response.Header.Get("Docker-Content-Digest"); said != "" && said != i.Digest.String() {
		return bad("%s took the manifest %s and calls it %s", p.site, i.Digest, shorten(said))
	}
	return nil
}
