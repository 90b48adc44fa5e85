package lesson

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/linkspan/linkspan"
)

// A teacher's key signs results where they come to be, so that nobody can change
// them on their way with an editor. It cannot do more: whoever is root on the
// machine that has the key can sign whatever they like. The half that verifies
// signs nothing and may go anywhere.

// NewKeys makes a pair of keys: the private one in a file that only its owner
// reads, the public one beside it with .pub behind its name. It overwrites neither.
func NewKeys(file string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	open, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	if err = writeNew(file, 0o600, &pem.Block{Type: "PRIVATE KEY", Bytes: secret}); err != nil {
		return err
	}
	return writeNew(file+".pub", 0o644, &pem.Block{Type: "PUBLIC KEY", Bytes: open})
}

func writeNew(name string, mode fs.FileMode, block *pem.Block) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err == nil {
		err = errors.Join(pem.Encode(file, block), file.Close())
	}
	if err != nil {
		return fmt.Errorf("writing a key: %w", err)
	}
	return nil
}

// PrivateKey reads the key that signs. No file is no key and no error.
func PrivateKey(file string) (ed25519.PrivateKey, error) {
	block, err := readKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block)
	key, is := parsed.(ed25519.PrivateKey)
	if err != nil || !is {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "%s is no private key of kind ed25519 (make one with: linkspan lab key FILE)", file)
	}
	return key, nil
}

// PublicKey reads the key that verifies.
func PublicKey(file string) (ed25519.PublicKey, error) {
	block, err := readKey(file)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKIXPublicKey(block)
	key, is := parsed.(ed25519.PublicKey)
	if err != nil || !is {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "%s is no public key of kind ed25519 (see: linkspan lab key --help)", file)
	}
	return key, nil
}

func readKey(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "%s holds no key (see: linkspan lab key --help)", file)
	}
	return block.Bytes, nil
}

// signed is what a signature is of: all but itself.
func (p Progress) signed() ([]byte, error) {
	p.Signature = nil
	return json.Marshal(p)
}

// Verify tells whether a result is as it was signed by the other half of a key.
func (p Progress) Verify(key ed25519.PublicKey) error {
	text, err := p.signed()
	if err != nil {
		return err
	}
	if len(p.Signature) == 0 {
		return linkspan.Errorf(linkspan.ErrInvalid, "the result of lesson %s, seed %q, is not signed", p.Lesson, p.Seed)
	}
	if !ed25519.Verify(key, text, p.Signature) {
		return linkspan.Errorf(linkspan.ErrInvalid, "the result of lesson %s, seed %q, was changed since it was signed, or was signed with another key", p.Lesson, p.Seed)
	}
	return nil
}

// ReadResults reads what lab report printed.
func ReadResults(text []byte) ([]Progress, error) {
	var all []Progress
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&all); err != nil {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "this is no result of lab report: %w", err)
	}
	return all, nil
}
