package image

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// request is one to a registry.
type request struct {
	method, url    string
	what           string // it is about, for messages
	site           *site
	scopes         []string // of the token: repository:NAME:pull
	accept         string
	contentType    string
	bytes          string // Range
	piece          string // Content-Range
	body           func() (io.ReadCloser, error)
	size           int64 // of the body
	ok             []int // the answers that are good
	user, password string
	secret         string        // in the body, which is nobody else's to see
	patience       time.Duration // in which nothing may move; 0 is the usual

	authorization string
}

// RegistryError is a registry's refusal.
type RegistryError struct {
	Registry    string
	What        string // was asked for
	Status      int    // of HTTP
	Detail      string // the registry's own words
	Credentials string // the file or program whose credentials it refuses; may be ""
	Account     string // what one signs in to
	Granted     bool   // it took the sign-in, and refuses what was asked for with it
	Redirected  bool   // it sent on to another host, which is the one that refuses

	challenges []string
	retryAfter time.Duration
}

func (e *RegistryError) Error() string {
	text := fmt.Sprintf("%s answers %d (%s) when asked for %s", e.Registry, e.Status, http.StatusText(e.Status), e.What)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.retryAfter > maxAsked*time.Second {
		text += fmt.Sprintf("; it wants to be left alone for %s", e.retryAfter)
	}
	return text
}

// UnreachableError is a registry that can't be spoken to.
type UnreachableError struct {
	Host string
	Err  error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("cannot reach %s: %v", e.Host, e.Err) }
func (e *UnreachableError) Unwrap() error { return e.Err }

// NotTLS tells that the other side speaks without TLS.
func (e *UnreachableError) NotTLS() bool {
	var record tls.RecordHeaderError
	return errors.Is(e.Err, http.ErrSchemeMismatch) || errors.As(e.Err, &record)
}

// Untrusted tells that nobody who is trusted here has signed the other side's
// certificate.
func (e *UnreachableError) Untrusted() bool {
	var unknown x509.UnknownAuthorityError
	return errors.As(e.Err, &unknown)
}

// OtherName tells that the other side's certificate is for other names.
func (e *UnreachableError) OtherName() bool {
	var name x509.HostnameError
	return errors.As(e.Err, &name)
}

// Invalid tells that the other side's certificate doesn't count: it has expired,
// for example.
func (e *UnreachableError) Invalid() bool {
	var invalid x509.CertificateInvalidError
	return errors.As(e.Err, &invalid)
}

// brokenError is a transfer that ended before its end.
type brokenError struct {
	what   string
	mirror bool // it came from one
	err    error
}

func (e *brokenError) Error() string { return fmt.Sprintf("%s broke off: %v", e.what, e.err) }
func (e *brokenError) Unwrap() error { return e.err }

func isBroken(err error) bool {
	var broken *brokenError
	return errors.As(err, &broken)
}

func redirected(err error) bool {
	var told *RegistryError
	return errors.As(err, &told) && told.Redirected
}

func unreachable(err error) bool {
	var e *UnreachableError
	return errors.As(err, &e)
}

var errStalled = errors.New("nothing came for too long")

// do sends a request, signed in as far as the registry asks for it, and again
// where an error may pass. The answer is one of those that are good, and its
// body the caller's to close.
func (r *Registry) do(ctx context.Context, q *request) (*http.Response, error) {
	header, err := r.authorization(ctx, q.site, q.scopes, "", nil)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		q.authorization = header
		response, err := r.retried(ctx, q)
		var denied *RegistryError
		if !errors.As(err, &denied) {
			return response, err
		}
		if denied.Status == http.StatusUnauthorized && denied.challenges != nil && try < 3 {
			next, err := r.authorization(ctx, q.site, q.scopes, header, denied.challenges)
			if err != nil {
				return nil, err
			}
			if next != "" && next != header {
				header = next
				continue
			}
		}
		denied.Account = q.site.account
		if !denied.Redirected {
			denied.Credentials = r.session(q.site).signedInBy()
			denied.Granted = strings.HasPrefix(header, "Bearer ")
		}
		return nil, err
	}
}

// retried sends a request until it gets an answer that another try won't
// change.
func (r *Registry) retried(ctx context.Context, q *request) (*http.Response, error) {
	tries, wait := originTry, firstPause
	if q.site.mirror {
		tries = mirrorTry
	}
	for try := 1; ; try++ {
		response, err := r.once(ctx, q)
		if err == nil || ctx.Err() != nil || !passing(err) || try >= tries || (unreachable(err) || redirected(err)) && try >= connectTry {
			return response, err
		}
		pause := wait + rand.N(wait/4)
		wait *= 2
		var told *RegistryError
		if errors.As(err, &told) && told.retryAfter > 0 {
			if pause = told.retryAfter; pause > maxAsked*time.Second {
				return nil, err
			}
		}
		r.waits(q.site, err, pause)
		if err := r.pause(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// waits tells why nothing comes, where somebody may wonder: once of a registry,
// whose layers all wait for the same.
func (r *Registry) waits(s *site, why error, pause time.Duration) {
	const unnoticed = 2 * time.Second
	if pause < unnoticed {
		return
	}
	r.mu.Lock()
	told := r.waited[s.String()]
	r.waited[s.String()] = true
	r.mu.Unlock()
	if !told {
		r.notice(fmt.Sprintf("%v; it is asked again in %s", why, pause.Round(time.Second)))
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// passing tells whether an error may pass by itself.
func passing(err error) bool {
	var told *RegistryError
	if errors.As(err, &told) {
		switch told.Status {
		case http.StatusRequestTimeout, http.StatusTooManyRequests:
			return true
		case http.StatusUnauthorized, http.StatusForbidden:
			return told.Redirected // the address was good for a time, and the registry gives another
		case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
			return false
		}
		return told.Status >= 500 // some proxies have numbers of their own there
	}
	var lost *UnreachableError
	if !errors.As(err, &lost) {
		return isBroken(err)
	}
	var (
		certificate *tls.CertificateVerificationError
		invalid     x509.CertificateInvalidError
		alert       tls.AlertError
		name        *net.DNSError
		refused     *BadImageError
	)
	return !(lost.NotTLS() || errors.Is(err, errCertificates) || errors.As(err, &certificate) || errors.As(err, &invalid) ||
		errors.As(err, &alert) || errors.As(err, &name) && name.IsNotFound || errors.As(err, &refused))
}

// once sends a request one time.
func (r *Registry) once(ctx context.Context, q *request) (*http.Response, error) {
	watched, cancel := context.WithCancelCause(ctx)
	w := &watch{after: cmp.Or(q.patience, r.stall), cancel: cancel}
	w.timer = time.AfterFunc(w.after, func() { cancel(errStalled) })
	response, err := r.send(watched, q, w)
	if err != nil {
		if context.Cause(watched) == errStalled {
			err = &UnreachableError{q.site.host, errStalled}
		}
		w.end()
		return nil, err
	}
	if slices.Contains(q.ok, response.StatusCode) {
		response.Body = &watchedBody{response.Body, w, watched, q, true}
		return response, nil
	}
	defer w.end()
	defer response.Body.Close()
	return nil, refusal(q, response)
}

func (r *Registry) send(ctx context.Context, q *request, w *watch) (*http.Response, error) {
	h, err := http.NewRequestWithContext(ctx, q.method, q.url, nil)
	if err != nil {
		return nil, err
	}
	if q.body != nil {
		h.GetBody = func() (io.ReadCloser, error) {
			b, err := q.body()
			if err != nil {
				return nil, err
			}
			return &watchedBody{b, w, ctx, q, false}, nil
		}
		if h.Body, err = h.GetBody(); err != nil {
			return nil, err
		}
		h.ContentLength = q.size
	}
	for key, value := range map[string]string{"Accept": q.accept, "Content-Type": q.contentType, "Range": q.bytes, "Content-Range": q.piece,
		"Authorization": q.authorization, "User-Agent": r.o.Agent} {
		if value != "" {
			h.Header.Set(key, value)
		}
	}
	if q.user != "" {
		h.SetBasicAuth(q.user, q.password)
	}
	client := *r.client
	if q.secret != "" {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	response, err := client.Do(h)
	if err == nil {
		return response, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	host := q.site.host
	var wrapped *url.Error
	if errors.As(err, &wrapped) { // it shows the whole address, which may hold a secret
		if u, err := url.Parse(wrapped.URL); err == nil && u.Host != "" {
			host = u.Host
		}
		err = wrapped.Err
	}
	return nil, &UnreachableError{host, err}
}

// checkRedirect follows a registry to where it keeps its blobs, but never from
// TLS to none, and never with what is meant for the registry alone.
func checkRedirect(q *http.Request, via []*http.Request) error {
	const most = 10
	if len(via) >= most {
		return bad("it redirects more than %d times", most)
	}
	first, last := via[0].URL, via[len(via)-1].URL
	if q.URL.Scheme != "https" && (q.URL.Scheme != "http" || last.Scheme == "https") {
		return bad("it redirects from https to %s://%s", shorten(q.URL.Scheme), shorten(q.URL.Host))
	}
	if !samePlace(q.URL, first) {
		q.Header.Del("Authorization")
	}
	q.Header.Del("Referer")
	return nil
}

// samePlace compares where addresses lead, however they are written.
func samePlace(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// refusal reads what a registry says instead of what was asked for.
func refusal(q *request, response *http.Response) error {
	e := &RegistryError{Registry: q.site.String(), What: q.what, Status: response.StatusCode,
		challenges: response.Header.Values("WWW-Authenticate"), retryAfter: retryAfter(response.Header.Get("Retry-After"), time.Now())}
	if asked, err := url.Parse(q.url); err == nil && !samePlace(response.Request.URL, asked) {
		// How one signs in there is not for what is kept for the registry.
		e.Registry, e.Redirected, e.challenges = shorten(response.Request.URL.Host)+", where "+e.Registry+" sends on to,", true, nil
	}
	const most = 64 << 10
	text, _ := io.ReadAll(io.LimitReader(response.Body, most)) // what there is of it
	var told struct {
		Errors []struct{ Code, Message string }
	}
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if json.Unmarshal(text, &told) == nil && len(told.Errors) > 0 {
		e.Detail = shorten(theirs(strings.Trim(told.Errors[0].Code+": "+told.Errors[0].Message, ": ")))
	} else if kind == "text/plain" {
		e.Detail = shorten(theirs(string(text)))
	}
	_, sent, _ := strings.Cut(q.authorization, " ")
	for _, secret := range []string{sent, q.password, q.secret} { // some show what they were sent
		if secret != "" && strings.Contains(string(text), secret) {
			e.Detail = ""
		}
	}
	return e
}

// theirs gives words of others' on one line: what follows an end of a line would
// pass for ours.
func theirs(text string) string { return strings.Join(strings.Fields(text), " ") }

// retryAfter reads the header of that name (RFC 9110, 10.2.3): seconds, or a
// time.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return time.Duration(min(n, 1<<20)) * time.Second
	}
	if t, err := http.ParseTime(text); err == nil && t.After(now) {
		return t.Sub(now).Round(time.Second)
	}
	return 0
}

// watch ends a transfer in which nothing moves.
type watch struct {
	after  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (w *watch) moved() { w.timer.Reset(w.after) }

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
}

// watchedBody is a body on its way, either way.
type watchedBody struct {
	io.ReadCloser
	watch   *watch
	ctx     context.Context
	request *request
	answer  bool // it comes, and ends the exchange
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.watch.moved()
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
		err = &brokenError{b.request.what, b.request.site.mirror, err}
	}
	return n, err
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	if b.answer {
		b.watch.end()
	}
	return err
}
