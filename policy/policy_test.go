package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"

	"platelayer/topology"
)

// The table of what each rule refuses and accepts.
func TestStations(t *testing.T) {
	dir := t.TempDir()
	project := filepath.Join(dir, "project")
	for _, err := range []error{os.MkdirAll(project+"/conf", 0o755), os.Mkdir(dir+"/data", 0o755), os.Symlink("/etc", project+"/link"),
		os.Symlink("nowhere", project+"/broken"), os.WriteFile(project+"/secret", nil, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ policy, station, refused string }{
		{"", "{privileged: true, volumes: [/etc:/x], cap_add: [ALL]}", ""},
		{"privileged: true", "{privileged: true}", ""},
		{"privileged: false", "{}", ""},
		{"privileged: false", "{cap_add: [NET_ADMIN, SYS_NICE]}", ""},
		{"privileged: false", "{privileged: true}", "f.yaml:4:21: it is privileged (policy.yaml:1)"},
		{"\nprivileged: false", "{cap_add: [NET_ADMIN, SYS_ADMIN]}", "f.yaml:4:30: the capability SYS_ADMIN makes it as mighty as the machine's root (policy.yaml:2)"},
		{"privileged: false", "{cap_add: [ALL]}", "f.yaml:4:19: the capability ALL makes it as mighty as the machine's root (policy.yaml:1)"},
		{"privileged: false", "{devices: [/dev/null]}", "f.yaml:4:19: it has the machine's device /dev/null (policy.yaml:1)"},
		{"privileged: false", "{security_opt: [seccomp=unconfined]}", "f.yaml:4:24: it runs without a system call filter (policy.yaml:1)"},
		{"privileged: false", "{security_opt: [seccomp=./secret]}", "f.yaml:4:24: it has a system call filter of its own, PROJECT/secret (policy.yaml:1)"},
		{"privileged: false", "{security_opt: ['no-new-privileges:false'], sysctls: {net.core.somaxconn: 1}}", ""},
		{"binds: any", "{volumes: [/etc:/x]}", ""},
		{"binds: project", "{volumes: [./conf:/x, data:/y, /z]}", ""},
		{"binds: project", "{volumes: [./not-there:/x]}", ""},
		{"binds: project", "{volumes: ['.:/x']}", ""},
		{"binds: project", "{rootfs: ./conf, command: x}", ""},
		{"binds: project", "{rootfs: host, command: x}", ""},
		{"binds: project", "{secrets: [inside]}", ""},
		{"binds: project", "{volumes: [/etc:/x]}", "f.yaml:4:19: /etc is outside the project's folder PROJECT (policy.yaml:1)"},
		{"binds: project", "{volumes: [../data:/x]}", "f.yaml:4:19: DIR/data is outside the project's folder PROJECT (policy.yaml:1)"},
		{"binds: project", "{volumes: [./link/ssl:/x]}", "f.yaml:4:19: PROJECT/link/ssl (/etc/ssl) is outside the project's folder PROJECT (policy.yaml:1)"},
		{"binds: project", "{volumes: [./broken:/x]}", "f.yaml:4:19: PROJECT/broken can't be looked at: it is a link that leads nowhere (policy.yaml:1)"},
		{"binds: project", "{rootfs: /, command: x}", "f.yaml:4:17: / is outside the project's folder PROJECT (policy.yaml:1)"},
		{"binds: project", "{configs: [outside]}", "f.yaml:4:19: /etc/passwd is outside the project's folder PROJECT (policy.yaml:1)"},
		{"binds: none", "{volumes: [./conf:/x]}", "f.yaml:4:19: PROJECT/conf is of the machine's files (policy.yaml:1)"},
		{"binds: [DIR/data]", "{volumes: [../data:/x]}", ""},
		{"binds: [DIR/data]", "{volumes: [./conf:/x]}", "f.yaml:4:19: PROJECT/conf is of the machine's files (policy.yaml:1)"},
		{"binds: [project, DIR/data]", "{volumes: [./conf:/x, ../data:/y]}", ""},
		{"binds: [project, DIR/dat]", "{volumes: [../data:/y]}", "f.yaml:4:19: DIR/data is outside the project's folder PROJECT (policy.yaml:1)"},
		{"unsealed: false", "{seal: [/etc]}", ""},
		{"unsealed: true", "{}", ""},
		{"unsealed: false", "{}", "f.yaml:4:5: it has no seal (policy.yaml:1)"},
	} {
		names := strings.NewReplacer("PROJECT", project, "DIR", dir)
		p, err := parse("policy.yaml", []byte(names.Replace(c.policy)))
		if err != nil {
			t.Errorf("%s: %v", c.policy, err)
			continue
		}
		text := "clusters:\n c:\n  stations:\n    a: " + c.station + "\nvolumes: {data: }\nsecrets: {inside: {file: ./secret}}\nconfigs: {outside: {file: /etc/passwd}}\n"
		top, err := topology.Load("f.yaml", []byte(text), topology.Options{Name: "t", Dir: project})
		if err != nil {
			t.Fatalf("%s: %v", c.station, err)
		}
		got := ""
		for _, r := range p.Stations(top, project, top.Stations()) {
			got += fmt.Sprintf("%s: %s (%s)", r.Place, r.Problem, r.Line)
		}
		if got != names.Replace(c.refused) {
			t.Errorf("%s with %s:\n got %q\nwant %q", c.policy, c.station, got, names.Replace(c.refused))
		}
	}
}

// A topology file that lies in no project makes none of the machine's folders.
func TestNoProject(t *testing.T) {
	p, err := parse("policy.yaml", []byte("binds: project"))
	if err != nil {
		t.Fatal(err)
	}
	for dir, path := range map[string]string{"/": "/srv", "/dev": "/dev/sda", "/etc": "/etc/shadow", "/proc/self": "/proc/self/root", "/var": "/var/lib",
		"/tmp": "/tmp/theirs", "/var/tmp": "/var/tmp/x"} {
		if _, problem := p.Source(dir, path); problem == "" {
			t.Errorf("%s is the project of %s", dir, path)
		}
	}
}

func TestImages(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	for _, c := range []struct{ policy, registry, repository, want string }{
		{"registries: [docker.io]", "docker.io", "library/nginx", ""},
		{"registries: [docker.io/library/*]", "docker.io", "library/nginx", ""},
		{"registries: [R.Example/shop/*]", "r.example", "shop/web", ""},
		{"registries: [docker.io/library/*]", "docker.io", "library/nginx/x", "registries"},
		{"registries: [docker.io/library/*]", "docker.io", "other/nginx", "registries"},
		{"registries: ['*.example:5000/shop/**']", "r.example:5000", "shop/a/b", ""},
		{"registries: ['*.example:5000/shop/**']", "r.example:5000", "shops/a", "registries"},
		{"registries: [R.Example:5000/shop/**]", "r.example:5000", "shop/a", ""},
		{"registries: ['*.example']", "evil.example.net", "a", "registries"},
		{"registries: [r.example]", "rXexample", "a", "registries"},
		{"registries: [R.Example/a]", "r.example", "a", ""},
		{"signed: [{images: [r.example/**], keys: [RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3]}]", "R.example", "a", "signed"},
		{"registries: []", "docker.io", "library/nginx", "registries"},
		{"digests: [" + a + "]", "x", "y", ""},
		{"digests: [" + b + "]", "x", "y", ""}, // of its index
		{"digests: []", "x", "y", "digests"},
		{"digests: [sha256:" + strings.Repeat("c", 64) + "]", "x", "y", "digests"},
	} {
		p, err := parse("policy.yaml", []byte(c.policy))
		if err != nil {
			t.Errorf("%s: %v", c.policy, err)
			continue
		}
		i := Image{c.registry, c.repository, []string{a, b}}
		_, rule, _ := p.Named(i)
		if rule == "" {
			_, rule, _ = p.Digested(i, func() ([]Signature, error) { return nil, errors.New("asked in vain") })
		}
		if rule != c.want {
			t.Errorf("%s with %s/%s: refused by %q, want %q", c.policy, c.registry, c.repository, rule, c.want)
		}
	}
}

// keyFile writes a public key as openssl and cosign do.
func keyFile(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSignatures(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: keys are its own")
	}
	digest, index := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	mini, miniKey, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, _ := minisign.GenerateKey(rand.Reader)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ed, edKey, _ := ed25519.GenerateKey(rand.Reader)
	rs, _ := rsa.GenerateKey(rand.Reader, 2048)
	payload := func(digest, kind string) []byte {
		return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"r"},"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, digest, kind)
	}
	good := payload(digest, "cosign container image signature")
	sum := sha256.Sum256(good)
	ecSig, _ := ecdsa.SignASN1(rand.Reader, ec, sum[:])
	rsSig, _ := rsa.SignPKCS1v15(rand.Reader, rs, crypto.SHA256, sum[:])
	text, _ := mini.MarshalText()
	other := payload(index[:len(index)-1]+"c", "cosign container image signature")
	kind := payload(digest, "else")
	for _, c := range []struct {
		what string
		key  string
		sig  Signature
		ok   bool
	}{
		{"minisign", string(text), Signature{Minisign: minisign.Sign(miniKey, []byte(digest))}, true},
		{"minisign, a line", string(text), Signature{Minisign: minisign.Sign(miniKey, []byte(digest+"\n"))}, true},
		{"minisign of the index", string(text), Signature{Minisign: minisign.Sign(miniKey, []byte(index))}, true},
		{"minisign, another key", string(text), Signature{Minisign: minisign.Sign(otherKey, []byte(digest))}, false},
		{"minisign, another digest", string(text), Signature{Minisign: minisign.Sign(miniKey, []byte("sha256:"+strings.Repeat("c", 64)))}, false},
		{"minisign, no signature", string(text), Signature{Minisign: []byte("x")}, false},
		{"ECDSA", keyFile(t, &ec.PublicKey), Signature{Payload: good, Cosign: ecSig}, true},
		{"ed25519", keyFile(t, ed), Signature{Payload: good, Cosign: ed25519.Sign(edKey, good)}, true},
		{"RSA", keyFile(t, &rs.PublicKey), Signature{Payload: good, Cosign: rsSig}, true},
		{"another kind of key", keyFile(t, ed), Signature{Payload: good, Cosign: ecSig}, false},
		{"another digest", keyFile(t, ed), Signature{Payload: other, Cosign: ed25519.Sign(edKey, other)}, false},
		{"another kind of payload", keyFile(t, ed), Signature{Payload: kind, Cosign: ed25519.Sign(edKey, kind)}, false},
		{"another payload", keyFile(t, ed), Signature{Payload: good, Cosign: ed25519.Sign(edKey, other)}, false},
		{"minisign's for cosign's key", keyFile(t, ed), Signature{Minisign: minisign.Sign(miniKey, []byte(digest))}, false},
		{"none", keyFile(t, ed), Signature{}, false},
	} {
		p, err := parse("policy.yaml", []byte("signed: [{images: [docker.io], keys: ['"+strings.ReplaceAll(strings.TrimSpace(c.key), "\n", "\n\n")+"']}]"))
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		signatures := func() ([]Signature, error) { return []Signature{{Payload: []byte("{}")}, c.sig}, nil }
		problem, _, line := p.Digested(Image{"docker.io", "library/a", []string{digest, index}}, signatures)
		if (problem == "") != c.ok || !c.ok && line != "policy.yaml:1" {
			t.Errorf("%s: got %q, %s", c.what, problem, line)
		}
		if problem, _, _ := p.Digested(Image{"elsewhere", "a", []string{digest}}, nil); problem != "" {
			t.Errorf("%s: an image that the rule doesn't mean: %s", c.what, problem)
		}
	}
}

// Nothing runs with a policy that can't be understood.
func TestBadPolicy(t *testing.T) {
	for text, want := range map[string]string{
		"privilegd: false":                    `policy.yaml:1: privilegd: there is no such rule`,
		"privileged: perhaps":                 `policy.yaml:1: privileged: it is true or false, not "perhaps"`,
		"privileged:":                         `policy.yaml:1: privileged: it says nothing`,
		"privileged: false\nprivileged: true": `policy.yaml:2: "privileged" is set twice`,
		"- privileged":                        `policy.yaml:1: it is not a mapping`,
		"a: [":                                `policy.yaml: yaml:`,
		"privileged: false\n---\nprivileged: true": `more than one document`,
		"registries: docker.io":                    `policy.yaml:1: registries: it is a list`,
		"registries: ['docker.io/Upper']":          `is not a pattern`,
		"registries: ['^docker']":                  `is not a pattern`,
		"signed: [{images: [web]}]":                `begins with no registry`,
		"signed: [{images: [shop/*]}]":             `begins with no registry`,
		"registries: [index.docker.io/**]":         `matches nothing: write docker.io`,
		"digests: [sha256:1234]":                   `is not a digest`,
		"signed: [{images: [docker.io]}]":          `has no keys`,
		"signed: [{images: [], keys: [x]}]":        `it names none`,
		"signed: [{keys: [nonsense]}]":             `it is neither minisign's nor a PEM block`,
		"signed: [{keys: [/none/there]}]":          `the key /none/there: `,
		"signed: [{key: [x]}]":                     `there is no "key"`,
		"binds: some":                              `it is any, project, none or a list of folders`,
		"binds: [./x]":                             `neither project nor an absolute folder`,
		"signatures: here":                         `not an absolute folder`,
	} {
		_, err := parse("policy.yaml", []byte(text))
		var bad *BadError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

// Only root may have written it, and where it lies.
func TestOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the file is its own")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	if p, err := Read(path); p != nil || err != nil {
		t.Errorf("without a file: %v, %v", p, err)
	}
	lost := filepath.Join(dir, "etc")
	if err := os.Symlink("gone", lost); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(filepath.Join(lost, "policy.yaml")); err == nil {
		t.Error("a folder that is a link to nothing is taken for no policy")
	}
	for _, c := range []struct {
		what   string
		change func() error
		want   string
	}{
		{"root's own", func() error { return os.WriteFile(path, []byte("privileged: false\n"), 0o644) }, ""},
		{"group-writable", func() error { return os.Chmod(path, 0o664) }, "mode 0664"},
		{"world-writable", func() error { return os.Chmod(path, 0o602) }, "mode 0602"},
		{"somebody's", func() error { return errors.Join(os.Chmod(path, 0o644), os.Chown(path, 1234, 0)) }, "user 1234"},
		{"folder of somebody's", func() error { return errors.Join(os.Chown(path, 0, 0), os.Chown(dir, 1234, 0)) }, "its folder " + dir},
		{"folder that all may write to", func() error { return errors.Join(os.Chown(dir, 0, 0), os.Chmod(dir, 0o777)) }, "its folder " + dir},
		{"again", func() error { return os.Chmod(dir, 0o755) }, ""},
		{"a folder", func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) }, "not a regular file"},
		{"a link to root's", func() error {
			return errors.Join(os.Remove(path), os.WriteFile(dir+"/real", nil, 0o600), os.Symlink("real", path))
		}, ""},
		{"a link to nothing", func() error { return errors.Join(os.Remove(path), os.Symlink("gone", path)) }, "no such file"},
		{"a link to somebody's", func() error {
			return errors.Join(os.Remove(path), os.Symlink("real", path), os.Chown(dir+"/real", 1234, 0))
		}, "user 1234"},
	} {
		if err := c.change(); err != nil {
			t.Fatal(c.what, err)
		}
		p, err := Read(path)
		if c.want == "" && (p == nil || err != nil) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, %v", c.what, p, err)
		}
	}
}
