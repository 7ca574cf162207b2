package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// challenge is what a registry asks for (RFC 9110, 11.6.1).
type challenge struct {
	scheme string // lower-case
	params map[string]string
}

// parseChallenges reads WWW-Authenticate headers. What can't be read ends it.
func parseChallenges(headers []string) []challenge {
	var all []challenge
	for _, rest := range headers {
		for {
			rest = strings.TrimLeft(rest, " \t,")
			word := token(rest)
			if word == "" {
				break
			}
			rest = strings.TrimLeft(rest[len(word):], " \t")
			value, found := strings.CutPrefix(rest, "=")
			if !found || len(all) == 0 {
				all = append(all, challenge{strings.ToLower(word), map[string]string{}})
				continue
			}
			value, rest = parameter(strings.TrimLeft(value, " \t"))
			all[len(all)-1].params[strings.ToLower(word)] = value
		}
	}
	return all
}

// token is what a text begins with (RFC 9110, 5.6.2).
func token(text string) string {
	end := strings.IndexFunc(text, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
	if end < 0 {
		return text
	}
	return text[:end]
}

// parameter cuts a parameter's value off, quoted or not.
func parameter(text string) (value, rest string) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, " \t,")
		if end < 0 {
			end = len(text)
		}
		return text[:end], text[end:]
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '"':
			return b.String(), text[i+1:]
		case '\\':
			if i++; i < len(text) {
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(text[i])
		}
	}
	return b.String(), ""
}

// session is how a host wants to be signed in to, once it has said so.
type session struct {
	mu         sync.Mutex
	asked      *challenge
	credential *credential
	looked     bool
	tokens     map[string]accessToken // by their scopes
}

// signedInBy is where the credentials that are used come from; "" without any.
func (s *session) signedInBy() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credential == nil {
		return ""
	}
	return s.credential.from
}

type accessToken struct {
	text  string
	ends  time.Time
	asked []string // scopes that the registry named itself
}

// authorization is the header of a request, "" before the registry has asked
// for one. refused is a header that was answered by 401, with what it said.
func (r *Registry) authorization(ctx context.Context, s *site, scopes []string, refused string, headers []string) (string, error) {
	session := r.session(s)
	session.mu.Lock()
	defer session.mu.Unlock()
	if headers != nil {
		if session.asked = usable(parseChallenges(headers)); session.asked == nil {
			return "", fmt.Errorf("%s wants to be signed in to in a way that is not known here: %s", s, shorten(strings.Join(headers, ", ")))
		}
	}
	if session.asked == nil {
		return "", nil
	}
	if !session.looked {
		session.looked = true
		session.credential = r.o.Credentials.find(ctx, s.account, s.repository, r.notice)
	}
	c := session.credential
	if session.asked.scheme == "basic" {
		if c == nil || c.user == "" {
			return "", nil
		}
		q := http.Request{Header: http.Header{}}
		q.SetBasicAuth(c.user, c.password)
		return q.Header.Get("Authorization"), nil
	}
	if c != nil && c.bearer != "" {
		return "Bearer " + c.bearer, nil
	}
	key := strings.Join(scopes, " ")
	t := session.tokens[key]
	if time.Now().Before(t.ends) && "Bearer "+t.text != refused {
		return "Bearer " + t.text, nil
	}
	asked := t.asked
	if headers != nil {
		asked = strings.Fields(session.asked.params["scope"])
	}
	scopes = slices.Concat(scopes, asked)
	slices.Sort(scopes)
	t, err := r.fetchToken(ctx, s, session.asked, c, slices.Compact(scopes))
	if err != nil {
		return "", err
	}
	t.asked = asked
	session.tokens[key] = t
	return "Bearer " + t.text, nil
}

func usable(all []challenge) *challenge {
	for _, scheme := range []string{"bearer", "basic"} {
		for n := range all {
			if all[n].scheme == scheme {
				return &all[n]
			}
		}
	}
	return nil
}

// session finds a site's; sites of one host may have credentials of their own.
func (r *Registry) session(s *site) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := s.base() + "/" + s.repository
	if r.sessions[key] == nil {
		r.sessions[key] = &session{tokens: map[string]accessToken{}}
	}
	return r.sessions[key]
}

// fetchToken gets an access token from where the registry says (distribution's
// "Token Authentication Specification" and its OAuth2 form).
func (r *Registry) fetchToken(ctx context.Context, s *site, asked *challenge, c *credential, scopes []string) (accessToken, error) {
	realm, err := url.Parse(asked.params["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && (realm.Scheme != "http" || s.scheme != "http") {
		return accessToken{}, bad("%s sends for tokens to %q, which is no https address", s, shorten(asked.params["realm"]))
	}
	q := &request{method: http.MethodGet, what: "the sign-in at " + realm.Host, site: s, ok: []int{http.StatusOK}, accept: "application/json"}
	values := realm.Query()
	if service := asked.params["service"]; service != "" {
		values.Set("service", service)
	}
	if c != nil && c.refresh != "" {
		values.Set("scope", strings.Join(scopes, " "))
		values.Set("grant_type", "refresh_token")
		values.Set("client_id", "platelayer")
		values.Set("refresh_token", c.refresh)
		text := values.Encode()
		q.secret = c.refresh
		q.method, q.contentType, q.size = http.MethodPost, "application/x-www-form-urlencoded", int64(len(text))
		q.body = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	} else {
		values["scope"] = append(values["scope"], scopes...)
		if c != nil {
			values.Set("account", c.user)
			q.user, q.password = c.user, c.password
		}
		realm.RawQuery = values.Encode()
	}
	q.url = realm.String()
	ctx, cancel := context.WithTimeout(s.sentBy(ctx, realm.Host), documentTime)
	defer cancel()
	response, err := r.retried(ctx, q)
	if err != nil {
		if denied := new(RegistryError); errors.As(err, &denied) {
			denied.Account = s.account
			if c != nil {
				denied.Credentials = c.from
			}
		}
		return accessToken{}, err
	}
	defer response.Body.Close()
	const largest = 1 << 20 // bytes
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   any    `json:"expires_in"` // seconds; some write a text
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, largest)).Decode(&answer); err != nil {
		return accessToken{}, fmt.Errorf("the sign-in at %s gave no token: %w", realm.Host, err)
	}
	t := accessToken{text: answer.Token}
	if t.text == "" {
		t.text = answer.AccessToken
	}
	if t.text == "" || strings.ContainsAny(t.text, "\r\n") {
		return accessToken{}, bad("the sign-in at %s gave no token", realm.Host)
	}
	const least, most = 60, 24 * 3600 // seconds; what a token lives that doesn't say, by the specification
	said, _ := answer.ExpiresIn.(float64)
	lives := time.Duration(min(max(said, least), most)) * time.Second
	t.ends = time.Now().Add(lives - lives/4)
	return t, nil
}
