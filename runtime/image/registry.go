package image

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/moby/moby/api/types/registry"

	"github.com/linkspan/linkspan"
)

// A registry is a web server with three kinds of page: manifests by name or
// digest, blobs by digest, and places to upload to (OCI distribution
// specification). By hand:
//
//	curl https://HOST/v2/REPOSITORY/manifests/latest -H 'Accept: application/vnd.oci.image.manifest.v1+json'
//	curl -L https://HOST/v2/REPOSITORY/blobs/sha256:…

// Credentials are what a client sends of its own: the daemon keeps none.
type Credentials = registry.AuthConfig

func authenticator(c Credentials) authn.Authenticator {
	if c == (Credentials{ServerAddress: c.ServerAddress}) {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: c.Username, Password: c.Password, Auth: c.Auth, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	})
}

// isInsecure tells whether a registry may speak plain HTTP: those on this
// machine, and those that the operator listed.
func (s *Store) isInsecure(host string) bool {
	if slices.Contains(s.options.Insecure, host) {
		return true
	}
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	if bare == "localhost" || slices.Contains(s.options.Insecure, bare) {
		return true
	}
	address, err := netip.ParseAddr(bare)
	if err != nil {
		return false
	}
	return address.IsLoopback() || slices.ContainsFunc(s.options.Insecure, func(text string) bool {
		prefix, err := netip.ParsePrefix(text)
		return err == nil && prefix.Contains(address)
	})
}

// remoteName puts a name in the form of the registry library.
func (s *Store) remoteName(named reference.Named) (name.Reference, error) {
	var o []name.Option
	if s.isInsecure(reference.Domain(named)) {
		o = append(o, name.Insecure)
	}
	ref, err := name.ParseReference(named.String(), o...)
	if err != nil {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid reference format: %w", err)
	}
	return ref, nil
}

func (s *Store) remoteOptions(ctx context.Context, c Credentials) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithAuth(authenticator(c)), remote.WithTransport(s.transport), remote.WithUserAgent("linkspan"), remote.WithJobs(transfers)}
}

// newTransport makes the way to registries. It refuses what the library would let
// pass: plain HTTP to private addresses that nobody has listed.
func (s *Store) newTransport() http.RoundTripper {
	plain := newClient(false)
	lax := newClient(true)
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if s.isInsecure(r.URL.Host) {
			return lax.RoundTrip(r)
		}
		if r.URL.Scheme != "https" {
			return nil, linkspan.Errorf(linkspan.ErrForbidden, "registry %s speaks plain HTTP: list it with --insecure-registry to allow that", r.URL.Host)
		}
		return plain.RoundTrip(r)
	})
}

func newClient(lax bool) *http.Transport {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{}).DialContext, ForceAttemptHTTP2: true,
		IdleConnTimeout: idleRegistry, TLSHandshakeTimeout: idleRegistry,
	}
	if lax {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the operator asked for it
	}
	return t
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// refused puts a registry's error into Docker's words. verb is pull or push.
func refused(verb string, named reference.Named, err error) error {
	var answer *transport.Error
	var ours *linkspan.Error
	var down *url.Error
	short := reference.FamiliarString(named)
	switch {
	case errors.Is(err, context.Canceled):
		return linkspan.Errorf(linkspan.ErrInvalid, "the client went away: %w", err)
	case errors.As(err, &ours):
		return ours
	case errors.As(err, &answer):
		for _, d := range answer.Errors {
			switch d.Code {
			case transport.ManifestUnknownErrorCode:
				return linkspan.Errorf(linkspan.ErrNotFound, "manifest for %s not found: manifest unknown: %w", short, err)
			case transport.NameUnknownErrorCode:
				return linkspan.Errorf(linkspan.ErrNotFound, "repository %s not found: name unknown: %w", reference.FamiliarName(named), err)
			}
		}
		switch answer.StatusCode {
		case http.StatusNotFound:
			return linkspan.Errorf(linkspan.ErrNotFound, "manifest for %s not found: manifest unknown: %w", short, err)
		case http.StatusUnauthorized, http.StatusForbidden:
			return linkspan.Errorf(linkspan.ErrNotFound, "%s access denied for %s, repository does not exist or may require 'docker login': denied: %w", verb, reference.FamiliarName(named), err)
		}
		return linkspan.Errorf(linkspan.ErrUnavailable, "registry %s refused: %w", reference.Domain(named), err)
	case errors.As(err, &down):
		return linkspan.Errorf(linkspan.ErrUnavailable, "registry %s cannot be reached: %w", reference.Domain(named), err)
	}
	return err
}

// Login tells whether a registry takes the credentials.
func (s *Store) Login(ctx context.Context, c Credentials) error {
	host := c.ServerAddress
	if parsed, err := url.Parse(host); err == nil && parsed.Host != "" {
		host = parsed.Host
	}
	if host == "" || host == "index.docker.io" || host == "docker.io" {
		host = name.DefaultRegistry
	}
	var o []name.Option
	if s.isInsecure(host) {
		o = append(o, name.Insecure)
	}
	reg, err := name.NewRegistry(host, o...)
	if err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid registry %q: %w", host, err)
	}
	t, err := transport.NewWithContext(ctx, reg, authenticator(c), s.transport, nil)
	if err == nil {
		err = knock(ctx, t, reg)
	}
	var answer *transport.Error
	if errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) {
		return linkspan.Errorf(linkspan.ErrUnauthorized, "login attempt to %s://%s/v2/ failed: incorrect username or password: %w", reg.Scheme(), host, err)
	}
	if err != nil {
		return linkspan.Errorf(linkspan.ErrUnavailable, "registry %s cannot be asked: %w", host, err)
	}
	return nil
}

func knock(ctx context.Context, t http.RoundTripper, reg name.Registry) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, reg.Scheme()+"://"+reg.RegistryStr()+"/v2/", http.NoBody)
	if err != nil {
		return err
	}
	answer, err := t.RoundTrip(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // nothing of it is wanted
	return transport.CheckError(answer, http.StatusOK)
}
