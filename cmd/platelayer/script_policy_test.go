package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"strings"

	"aead.dev/minisign"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"

	"platelayer/containers/image"
)

// signCommand: `sign minisign DIGEST FOLDER` signs a digest with a new key, which
// goes into minisign.pub, and puts the signature into a folder; `sign cosign
// NAME DIGEST` does as cosign does, with cosign.pub, into the script's registry.
func signCommand(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case !neg && len(args) == 3 && args[0] == "minisign":
		public, private, err := minisign.GenerateKey(rand.Reader)
		ts.Check(err)
		text, err := public.MarshalText()
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs("minisign.pub"), append(text, '\n'), 0o644))
		ts.Check(os.MkdirAll(ts.MkAbs(args[2]), 0o755))
		name := strings.Replace(args[1], ":", "-", 1) + ".minisig"
		ts.Check(os.WriteFile(ts.MkAbs(args[2]+"/"+name), minisign.Sign(private, []byte(args[1])), 0o644))
	case !neg && len(args) == 3 && args[0] == "cosign":
		ts.Check(cosign(ts, args[1], args[2]))
	default:
		ts.Fatalf("usage: sign minisign digest folder, or sign cosign name digest")
	}
}

func cosign(ts *testscript.TestScript, name, digest string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(ts.MkAbs("cosign.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644); err != nil {
		return err
	}
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, name, digest)
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return err
	}
	ref, err := image.ParseReference(name)
	if err != nil {
		return err
	}
	ref.Tag = strings.Replace(digest, ":", "-", 1) + ".sig"
	r := registryOf(ts)
	layer, err := r.blob(ref, "application/vnd.dev.cosign.simplesigning.v1+json", payload)
	if err != nil {
		return err
	}
	layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{layer}}
	if m.Config, err = r.blob(ref, types.OCIConfigJSON, []byte("{}")); err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return r.put(http.MethodPut, ref, "manifests/"+ref.Tag, string(m.MediaType), bytes.Clone(text))
}
