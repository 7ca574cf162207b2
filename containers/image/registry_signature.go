package image

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// SignedPayload is a signature as cosign keeps it in a registry: of the payload,
// in base64 (github.com/sigstore/cosign, specs/SIGNATURE_SPEC.md).
type SignedPayload struct {
	Payload   []byte
	Signature string
}

const (
	maxSignatures = 64
	maxPayload    = 64 << 10 // bytes; one has some 300
)

// Signatures gives what a registry has as signatures of an image: beside it
// under the tag sha256-HEX.sig. None of it is checked here but its digests.
func (r *Registry) Signatures(ctx context.Context, of Reference, digest v1.Hash) ([]SignedPayload, error) {
	if err := checkHash(digest); err != nil {
		return nil, err
	}
	of.Tag, of.Digest = "sha256-"+digest.Hex+".sig", ""
	m, err := r.Resolve(ctx, of, MachinePlatform())
	var said *RegistryError
	if errors.As(err, &said) && said.Status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(m.Manifest, &manifest); err != nil {
		return nil, bad("%s: its manifest is not valid: %v", of.Short(), err)
	}
	var all []SignedPayload
	for _, d := range manifest.Layers[:min(len(manifest.Layers), maxSignatures)] {
		signature := d.Annotations["dev.cosignproject.cosign/signature"]
		if signature == "" || d.Size > maxPayload || checkHash(d.Digest) != nil {
			continue
		}
		payload, err := m.payload(ctx, d)
		if err != nil {
			return nil, err
		}
		all = append(all, SignedPayload{payload, signature})
	}
	return all, nil
}

func (m *Remote) payload(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	body, from, err := m.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxPayload+1))
	if err != nil {
		return nil, err
	}
	if sum := hashOf(text); from != 0 || sum != d.Digest {
		return nil, bad("what came for %s has the digest %s", d.Digest, sum)
	}
	return text, nil
}
