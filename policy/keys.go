package policy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"strings"

	"aead.dev/minisign"
	"gopkg.in/yaml.v3"
)

// Key is a public key of somebody whose signature counts: one of minisign's, or
// one as cosign writes them.
type Key struct {
	minisign *minisign.PublicKey
	public   crypto.PublicKey
}

// Signature is one of an image: minisign's of the digest's text, or cosign's of a
// payload that names the digest
// (github.com/sigstore/cosign, specs/SIGNATURE_SPEC.md).
type Signature struct {
	Minisign []byte `json:"minisign,omitempty"`
	Payload  []byte `json:"payload,omitempty"`
	Cosign   []byte `json:"signature,omitempty"`
}

// readKeys reads keys: minisign's as text, or files.
func readKeys(value *yaml.Node) ([]Key, error) {
	list, err := words(value)
	if err != nil {
		return nil, err
	}
	var keys []Key
	for _, text := range list {
		data := []byte(text)
		if path.IsAbs(text) {
			var err error
			if data, err = readOwn(text); err != nil {
				return nil, fmt.Errorf("the key %s: %w", text, err)
			}
		}
		k, err := parseKey(data)
		if err != nil {
			return nil, fmt.Errorf("the key %.60q: %w", text, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func parseKey(data []byte) (Key, error) {
	if block, _ := pem.Decode(data); block != nil {
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return Key{}, fmt.Errorf("it is not a public key: %w", err)
		}
		switch k := public.(type) {
		case *ecdsa.PublicKey, ed25519.PublicKey:
		case *rsa.PublicKey:
			if k.N.BitLen() < 2048 {
				return Key{}, fmt.Errorf("an RSA key of %d bits is too short", k.N.BitLen())
			}
		default:
			return Key{}, fmt.Errorf("keys of the type %T are not supported", public)
		}
		return Key{public: public}, nil
	}
	// A file of minisign's has a comment before the key.
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	k := new(minisign.PublicKey)
	if err := k.UnmarshalText([]byte(strings.TrimSpace(lines[len(lines)-1]))); err != nil {
		return Key{}, errors.New("it is neither minisign's nor a PEM block of a public key")
	}
	return Key{minisign: k}, nil
}

// verifies tells whether a signature says that its owner signed an image of one
// of the digests.
func (k *Key) verifies(s *Signature, digests []string) bool {
	if k.minisign != nil {
		for _, d := range digests {
			// Whoever wrote the digest into a file may have ended the line.
			if s.Minisign != nil && (minisign.Verify(*k.minisign, []byte(d), s.Minisign) || minisign.Verify(*k.minisign, []byte(d+"\n"), s.Minisign)) {
				return true
			}
		}
		return false
	}
	if s.Payload == nil || !k.verifiesPayload(s) {
		return false
	}
	var said struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if json.Unmarshal(s.Payload, &said) != nil || said.Critical.Type != "cosign container image signature" {
		return false
	}
	for _, d := range digests {
		if said.Critical.Image.Digest == d {
			return true
		}
	}
	return false
}

func (k *Key) verifiesPayload(s *Signature) bool {
	switch public := k.public.(type) {
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(s.Payload)
		hashed := sum[:]
		if bits := public.Curve.Params().BitSize; bits > 384 {
			long := sha512.Sum512(s.Payload)
			hashed = long[:]
		} else if bits > 256 {
			long := sha512.Sum384(s.Payload)
			hashed = long[:]
		}
		return ecdsa.VerifyASN1(public, hashed, s.Cosign) || ecdsa.VerifyASN1(public, sum[:], s.Cosign)
	case ed25519.PublicKey:
		return ed25519.Verify(public, s.Payload, s.Cosign)
	case *rsa.PublicKey:
		sum := sha256.Sum256(s.Payload)
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], s.Cosign) == nil
	}
	return false
}

// maxSignatures bounds what is tried of those that a registry gives.
const maxSignatures = 64

// ReadSignatures reads a file of signatures: minisign's, or a JSON list of
// cosign's as this program keeps them.
func ReadSignatures(data []byte) ([]Signature, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("[")) {
		return []Signature{{Minisign: data}}, nil
	}
	var list []Signature
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	return list[:min(len(list), maxSignatures)], nil
}

// CosignSignature is a signature as cosign has it in a registry: its payload, and
// base64 text.
func CosignSignature(payload []byte, signature string) (Signature, error) {
	sig, err := base64.StdEncoding.DecodeString(signature)
	return Signature{Payload: payload, Cosign: sig}, err
}
