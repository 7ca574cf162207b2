package image

import (
	"strings"
	"testing"
)

func TestParseReference(t *testing.T) {
	digest := "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for text, want := range map[string]string{
		"nginx":                           "docker.io/library/nginx:latest",
		"nginx:1.27":                      "docker.io/library/nginx:1.27",
		"shop/web":                        "docker.io/shop/web:latest",
		"docker.io/library/nginx":         "docker.io/library/nginx:latest",
		"registry.example:5000/a/b_c-d.e": "registry.example:5000/a/b_c-d.e:latest",
		"localhost/x":                     "localhost/x:latest",
		"localhost:5000/x:1":              "localhost:5000/x:1",
		"x@" + digest:                     "docker.io/library/x@" + digest,
		"x:1@" + digest:                   "docker.io/library/x@" + digest,
		"Registry.Example:5000/a:B":       "registry.example:5000/a:B",
		"Docker.IO/nginx":                 "docker.io/library/nginx:latest",
		"[2001:DB8::1]:5000/a":            "[2001:db8::1]:5000/a:latest",
		"registry.example./a":             "",
		"user@registry.example/a":         "",
		"docker.io/shop":                  "docker.io/library/shop:latest",
		"index.docker.io/shop":            "docker.io/library/shop:latest",
		"Registry.Example/x:Tag":          "registry.example/x:Tag",
		"[::1]:5000/x":                    "[::1]:5000/x:latest",
		"[fd00::1]/a/b:1":                 "[fd00::1]/a/b:1",
		"r.example/x:1@" + digest:         "r.example/x@" + digest,
		"r.example:/x":                    "",
		"r.example:70000/x":               "",
		"[::1]:70000/x":                   "",
		"[::1]:/x":                        "",
		"::1/x":                           "",
		"b\u00fccher.example/x":           "",
		"ada@r.example/x":                 "",
		"r.example/Upper":                 "",
		"Upper":                           "",
		"":                                "",
		"a b":                             "",
		"../x":                            "",
		"../../etc/passwd":                "",
		"a/../b":                          "",
		"a//b":                            "",
		"./a":                             "",
		"/a":                              "",
		"-a":                              "",
		"a/-b":                            "",
		"a:b:c":                           "",
		"a:../b":                          "",
		"..:80/a":                         "",
		"x@sha256:12":                     "",
		"x\n":                             "",
	} {
		ref, err := ParseReference(text)
		if want == "" {
			if err == nil {
				t.Errorf("%q was taken as %s", text, ref)
			}
			continue
		}
		if err != nil || ref.String() != want {
			t.Errorf("%q: got %s, %v, want %s", text, ref, err, want)
		}
	}
}

func TestNotAName(t *testing.T) {
	for text, want := range map[string]string{
		"https://r.example/x": "write it without https://",
		"docker://nginx":      "write it without docker://",
		"Shop":                "write it in lower case",
		"r.example/Shop:Tag":  "write it in lower case",
		"a b":                 "",
	} {
		_, err := ParseReference(text)
		if err == nil || !strings.HasSuffix(err.Error(), strings.TrimSuffix("is not an image's name: "+want, ": ")) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

// TestAddresses are where registries are reached.
func TestAddresses(t *testing.T) {
	for name, want := range map[string]string{
		"nginx":              "https://registry-1.docker.io/v2/library/nginx/manifests/latest",
		"[::1]:5000/x:1":     "https://[::1]:5000/v2/x/manifests/latest",
		"r.example:5000/a/b": "https://r.example:5000/v2/a/b/manifests/latest",
		"plain.example:80/a": "http://plain.example:80/v2/a/manifests/latest",
	} {
		registries := Registries{PlainHTTP: []string{"plain.example:80"}}
		if got := registries.origin(mustReference(t, name), false).url("manifests/latest"); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
