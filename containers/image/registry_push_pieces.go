package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// pieceSize is as much as common proxies take in one request, in bytes.
const pieceSize = 32 << 20

// tooLarge tells that a registry, or what stands before it, takes no request of
// that size.
func tooLarge(err error) bool {
	var told *RegistryError
	return errors.As(err, &told) && told.Status == http.StatusRequestEntityTooLarge
}

// pieces sends a blob in pieces (OCI distribution-spec, "Pushing a blob in
// chunks"). One that breaks off goes on where the registry has it.
func (p *push) pieces(ctx context.Context, session *url.URL, d v1.Descriptor) error {
	f, err := p.store.openBlob(d.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	const tries = 4 // for each piece
	for at, try := int64(0), 1; at < d.Size; try++ {
		n := min(p.registry.piece, d.Size-at)
		q := p.request(http.MethodPatch, session.String(), "taking a piece of "+d.Digest.String()+" into "+p.site.repository, http.StatusAccepted)
		q.contentType, q.piece, q.size, q.patience = "application/octet-stream", fmt.Sprintf("%d-%d", at, at+n-1), n, storeTime
		q.body = func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(f, at, n)), nil }
		response, err := p.put(ctx, session, q)
		if err == nil {
			response.Body.Close()
			if session, err = p.location(response); err != nil {
				return err
			}
			at, try = at+n, 0
			p.options.tell(Progress{Digest: d.Digest, Done: at, Total: d.Size, Stage: StageSending})
			continue
		}
		if ctx.Err() != nil || try == tries || !passing(err) && !unauthorized(err) {
			return err
		}
		if err := p.registry.pause(ctx, firstPause<<try); err != nil {
			return err
		}
		there, askErr := p.reached(ctx, session)
		if askErr != nil || there > d.Size {
			return err
		}
		at = there
	}
	response, err := p.put(ctx, session, p.last(session, d))
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// reached asks how many bytes of an upload have come.
func (p *push) reached(ctx context.Context, session *url.URL) (int64, error) {
	response, err := p.put(ctx, session, p.request(http.MethodGet, session.String(), "what has come into "+p.site.repository, http.StatusNoContent, http.StatusOK))
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	var last int64
	told := strings.TrimPrefix(response.Header.Get("Range"), "bytes=")
	if told == "" || told == "0-0" || told == "0--1" { // registries write nothing so
		return 0, nil
	}
	if _, err := fmt.Sscanf(told, "0-%d", &last); err != nil || last < 0 {
		return 0, bad("%s says that %q has come", p.site, shorten(told))
	}
	return last + 1, nil
}
