package image

import "testing"

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
