package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Blob is Source's: the mirrors that gave something wrong before are not asked.
func (m *Remote) Blob(ctx context.Context, d v1.Descriptor, offset int64) (body io.ReadCloser, from int64, err error) {
	select {
	case m.registry.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	free := sync.OnceFunc(func() { <-m.registry.slots })
	m.mu.Lock()
	not := m.bad[d.Digest]
	m.mu.Unlock()
	err = m.eachSite(ctx, not, func(s *site) (err error) {
		body, from, err = m.registry.blob(ctx, s, d, offset)
		if err == nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.served[d.Digest] = s
		}
		return err
	})
	if err != nil {
		free()
		return nil, 0, err
	}
	return &slotBody{body, free}, from, nil
}

type slotBody struct {
	io.ReadCloser
	free func()
}

func (b *slotBody) Close() error {
	defer b.free()
	return b.ReadCloser.Close()
}

// Again is Source's: what a registry refuses has been tried often enough, and
// after a mirror's failure it is another's turn.
func (m *Remote) Again(err error) bool {
	var broken *brokenError
	if errors.As(err, &broken) {
		return !broken.mirror
	}
	return errors.Is(err, io.ErrUnexpectedEOF)
}

// Elsewhere is called when what came for a blob was wrong or did not come to
// its end, and tells whether another site can be asked for it.
func (m *Remote) Elsewhere(d v1.Descriptor, err error) bool {
	var wrong *BadImageError
	m.mu.Lock()
	s := m.served[d.Digest]
	if s == nil || !s.mirror || !errors.As(err, &wrong) && !isBroken(err) && !errors.Is(err, io.ErrUnexpectedEOF) {
		m.mu.Unlock()
		return false
	}
	not := map[*site]bool{s: true} // replaced, as others read it
	for other := range m.bad[d.Digest] {
		not[other] = true
	}
	m.bad[d.Digest] = not
	m.mu.Unlock()
	m.registry.mirrorFailed(s, err)
	return true
}

// blob asks a site for a blob from an offset on.
func (r *Registry) blob(ctx context.Context, s *site, d v1.Descriptor, offset int64) (body io.ReadCloser, from int64, err error) {
	q := &request{method: http.MethodGet, url: s.url("blobs/" + d.Digest.String()), what: d.Digest.String() + " of " + s.repository,
		site: s, scopes: []string{"repository:" + s.repository + ":pull"}, ok: []int{http.StatusOK}}
	if offset > 0 {
		q.bytes = fmt.Sprintf("bytes=%d-%d", offset, d.Size-1) // some know no open ends
		q.ok = append(q.ok, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	}
	response, err := r.do(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	switch {
	case response.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		response.Body.Close()
		return r.blob(ctx, s, d, 0)
	case response.StatusCode == http.StatusOK:
		offset = 0 // it knows no ranges
	case !strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)):
		response.Body.Close()
		return nil, 0, bad("%s gave %q when asked for %s from byte %d on", s, shorten(response.Header.Get("Content-Range")), d.Digest, offset)
	}
	if n := response.ContentLength; n >= 0 && n != d.Size-offset {
		response.Body.Close()
		return nil, 0, bad("%s has %d bytes in %s, and %d by its manifest", d.Digest, n+offset, s, d.Size)
	}
	return response.Body, offset, nil
}
