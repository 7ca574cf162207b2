package image

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestScopes signs in once to a registry that names scopes of its own.
func TestScopes(t *testing.T) {
	r, s := newTestRegistry(t), newTokens(t)
	r.offer("shop/web", "latest", bigImage(t, 1))
	guard(r, fmt.Sprintf(`Bearer realm="%s/token",service="here",scope="repository:project/web:pull repository:base:pull"`, s.URL), s.good)
	if _, err := newTestClient(t, RegistryOptions{PlainHTTP: true}).pull(t, newStore(t), r.host()+"/shop/web"); err != nil {
		t.Error(err)
	}
	if want := "GET  here repository:base:pull+repository:project/web:pull+repository:shop/web:pull"; len(s.log) != 1 || s.log[0] != want {
		t.Errorf("signed in by %q", s.log)
	}
}

// TestTokenAnswers takes what token servers write.
func TestTokenAnswers(t *testing.T) {
	for answer, problem := range map[string]string{
		`{"access_token":"t","expires_in":300,"token_type":"Bearer"}`: "",
		`{"token":"t"}`:                       "",
		`{"token":"t","access_token":"u"}`:    "",
		`{"token":"t","expires_in":"300"}`:    "",
		`{"token":"t","expires_in":1e18}`:     "",
		`{"token":"t","expires_in":-5}`:       "",
		`{"token":""}`:                        "gave no token",
		`{"token":"t\r\nX-Injected: s3cret"}`: "gave no token",
		`<html>s3cret`:                        "gave no token",
	} {
		r := newTestRegistry(t)
		r.offer("a", "latest", bigImage(t, 1))
		signs := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			signs++
			io.WriteString(w, answer)
		}))
		guard(r, fmt.Sprintf(`Bearer realm="%s"`, s.URL), func(header string) bool { return header == "Bearer t" })
		_, err := newTestClient(t, RegistryOptions{PlainHTTP: true}).pull(t, newStore(t), r.host()+"/a")
		if (err == nil) != (problem == "") || err != nil && (!strings.Contains(err.Error(), problem) || strings.Contains(err.Error(), "s3cret")) || signs != 1 {
			t.Errorf("%s: signed in %d times, got %v", answer, signs, err)
		}
		s.Close()
	}
}

// TestGranted tells a sign-in that is refused from a right that is.
func TestGranted(t *testing.T) {
	r, s := newTestRegistry(t), newTokens(t)
	guard(r, fmt.Sprintf(`Bearer realm="%s/token",error="insufficient_scope"`, s.URL), func(string) bool { return false })
	var denied *RegistryError
	if _, err := signedIn(t, r).pull(t, newStore(t), r.host()+"/a"); !errors.As(err, &denied) || !denied.Granted || denied.Credentials == "" {
		t.Errorf("got %v, %+v", err, denied)
	}
	guard(r, `Basic realm="here"`, func(string) bool { return false })
	if _, err := signedIn(t, r).pull(t, newStore(t), r.host()+"/a"); !errors.As(err, &denied) || denied.Granted {
		t.Errorf("got %v, %+v", err, denied)
	}
}
