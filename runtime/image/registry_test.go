package image

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
)

// hub is a registry on loopback.
type hub struct {
	host  string
	blobs atomic.Int64 // fetched
	user  string       // whom it lets in; "" is everybody
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); h.user != "" && (user != h.user || password != "secret") {
			w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			h.blobs.Add(1)
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	h.host = strings.TrimPrefix(server.URL, "http://")
	return h
}

// progress collects what is told.
type progress []string

func (p *progress) tell(m jsonstream.Message) {
	if m.Progress == nil {
		*p = append(*p, strings.TrimPrefix(m.ID+": "+m.Status, ": "))
	}
}

func (p progress) has(text string) bool {
	return strings.Contains(strings.Join(p, "\n"), text)
}

func quietly(jsonstream.Message) {}

func TestPushAndPull(t *testing.T) {
	h := newHub(t)
	b := open(t)
	ref := h.host + "/lab/tool:1"
	i := b.imported(t, ref, tar.Header{Name: "f"}, tar.Header{Name: "d/.wh.gone"})
	var said progress
	must(t, b.Push(t.Context(), ref, false, Credentials{}, said.tell))
	if !said.has("The push refers to repository ["+h.host+"/lab/tool]") || !said.has("1: digest: sha256:") {
		t.Error(said)
	}
	pushed, err := b.Get(ref)
	must(t, err)
	if len(pushed.Digests) != 1 {
		t.Fatal(pushed.Digests)
	}
	said = nil
	must(t, b.Push(t.Context(), ref, false, Credentials{}, said.tell))
	if !said.has("Layer already exists") {
		t.Error(said)
	}

	other := open(t)
	said = nil
	must(t, other.Pull(t.Context(), ref, ocispec.Platform{}, Credentials{}, said.tell))
	if !said.has("1: Pulling from lab/tool") || !said.has("Status: Downloaded newer image for "+ref) {
		t.Error(said)
	}
	got, err := other.Get(pushed.Digests[0])
	must(t, err)
	if got.ID != i.ID || got.Tags[0] != ref {
		t.Errorf("%+v", got)
	}
	if _, err := os.Lstat(filepath.Join(got.Lower[0], "d", "gone")); err != nil {
		t.Error(err)
	}
	fetched := h.blobs.Load()
	said = nil
	must(t, other.Pull(t.Context(), ref, ocispec.Platform{}, Credentials{}, said.tell))
	if said.has("Already exists") || !said.has("Status: Image is up to date for "+ref) {
		t.Error(said)
	}
	if more := h.blobs.Load() - fetched; more > 1 { // the configuration
		t.Errorf("%d blobs fetched again", more)
	}
	// What came by pull is pushed again with the same manifest.
	must(t, other.Tag(ref, h.host+"/copy:2"))
	must(t, other.Tag(ref, h.host+"/copy:3"))
	said = nil
	must(t, other.Push(t.Context(), h.host+"/copy", true, Credentials{}, said.tell))
	if n := strings.Count(strings.Join(said, "\n"), "The push refers to repository"); n != 1 || !said.has(": Preparing") || !said.has("3: digest: sha256:") {
		t.Error(said)
	}
	copied, err := other.Get(h.host + "/copy:2")
	must(t, err)
	_, want, _ := strings.Cut(pushed.Digests[0], "@")
	for _, d := range copied.Digests {
		if !strings.HasSuffix(d, want) {
			t.Errorf("%s, want %s", d, want)
		}
	}
	// The digest alone is a name as well.
	third := open(t)
	must(t, third.Pull(t.Context(), h.host+"/copy@"+want, ocispec.Platform{}, Credentials{}, quietly))
	if got, err := third.Get(h.host + "/copy@" + want); err != nil || len(got.Tags) > 0 {
		t.Error(got, err)
	}
	third.reopen(t)
	if _, err := third.Remove(h.host+"/copy@"+want, false); err != nil || len(third.List()) > 0 {
		t.Error(third.List(), err)
	}
}

// An index has images for several platforms: one of them is fetched.
func TestPullByPlatform(t *testing.T) {
	h := newHub(t)
	var index v1.ImageIndex = empty.Index
	ids := map[string]string{}
	for _, arch := range []string{"amd64", "arm64"} {
		image, err := random.Image(100, 2)
		must(t, err)
		image, err = mutate.ConfigFile(image, config(t, image, arch))
		must(t, err)
		id, err := image.ConfigName()
		must(t, err)
		ids[arch] = id.String()
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	ref, err := name.ParseReference(h.host + "/multi:1")
	must(t, err)
	must(t, remote.WriteIndex(ref, index))
	b := open(t)
	for _, arch := range []string{"amd64", "arm64"} {
		must(t, b.Pull(t.Context(), ref.String(), ocispec.Platform{OS: "linux", Architecture: arch}, Credentials{}, quietly))
		got, err := b.Get(ref.String())
		must(t, err)
		if string(got.ID) != ids[arch] {
			t.Errorf("%s: %s, want %s", arch, got.ID, ids[arch])
		}
	}
	found, err := b.Remote(t.Context(), ref.String(), Credentials{})
	must(t, err)
	if len(found.Platforms) != 2 {
		t.Error(found)
	}
	err = b.Pull(t.Context(), ref.String(), ocispec.Platform{OS: "linux", Architecture: "s390x"}, Credentials{}, quietly)
	if !errors.Is(err, linkspan.ErrNotFound) || !strings.Contains(err.Error(), "no matching manifest for linux/s390x") {
		t.Error(err)
	}
}

func config(t *testing.T, image v1.Image, arch string) *v1.ConfigFile {
	t.Helper()
	c, err := image.ConfigFile()
	must(t, err)
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", arch
	return c
}

func TestPrivateRegistry(t *testing.T) {
	h := newHub(t)
	h.user = "me"
	b := open(t)
	ref := h.host + "/secret"
	b.imported(t, ref, tar.Header{Name: "f"})
	good, bad := Credentials{Username: "me", Password: "secret", ServerAddress: h.host}, Credentials{Username: "me", Password: "wrong", ServerAddress: h.host}
	must(t, b.Push(t.Context(), ref, false, good, quietly))
	must(t, open(t).Pull(t.Context(), ref, ocispec.Platform{}, good, quietly))
	must(t, b.Login(t.Context(), good))
	if err := b.Login(t.Context(), bad); !errors.Is(err, linkspan.ErrUnauthorized) {
		t.Error(err)
	}
	for _, c := range []Credentials{bad, {}} {
		if err := open(t).Pull(t.Context(), ref, ocispec.Platform{}, c, quietly); !errors.Is(err, linkspan.ErrNotFound) || !strings.HasPrefix(err.Error(), "pull access denied for "+ref) {
			t.Error(err)
		}
	}
}

func TestRegistryRefusals(t *testing.T) {
	h := newHub(t)
	b := open(t)
	b.imported(t, "10.0.0.1:5/x", tar.Header{Name: "f"})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		err  error
		kind error
		text string
	}{
		{b.Pull(t.Context(), h.host+"/nosuch", ocispec.Platform{}, Credentials{}, quietly), linkspan.ErrNotFound, "nosuch"},
		{b.Pull(t.Context(), "127.0.0.1:1/x", ocispec.Platform{}, Credentials{}, quietly), linkspan.ErrUnavailable, "registry 127.0.0.1:1 cannot be reached"},
		{b.Pull(gone, h.host+"/x", ocispec.Platform{}, Credentials{}, quietly), linkspan.ErrInvalid, "the client went away"},
		{b.Push(t.Context(), "nosuch", false, Credentials{}, quietly), linkspan.ErrNotFound, "An image does not exist locally with the tag: nosuch"},
		{b.Pull(t.Context(), "BAD", ocispec.Platform{}, Credentials{}, quietly), linkspan.ErrInvalid, "invalid reference format"},
	} {
		if !errors.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%v, want %s", c.err, c.text)
		}
	}
	for host, want := range map[string]bool{"localhost:5000": true, "127.9.9.9": true, "10.0.0.1:5": false, "192.168.1.1": false, "[::1]:5": true, "hub.test": false} {
		if b.isInsecure(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
	b.options.Insecure = []string{"hub.test", "10.0.0.0/8"}
	for _, host := range []string{"hub.test", "hub.test:80", "10.0.0.1:5"} {
		if !b.isInsecure(host) {
			t.Error(host)
		}
	}
}
