package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
)

// messages collects what is told; only the streams and the errors matter.
type messages []string

func (m *messages) tell(message jsonstream.Message) {
	if message.Stream != "" {
		*m = append(*m, strings.TrimSpace(message.Stream))
	}
}

// packed is a tar of named texts.
func packed(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, text := range files {
		must(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}))
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	must(t, w.Close())
	return out.Bytes()
}

func (b *bench) saved(t *testing.T, refs ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	must(t, b.Save(refs, func() io.Writer { return &out }))
	return out.Bytes()
}

// What is saved is loaded again, elsewhere, as the same image under the same
// names; and as an OCI layout too.
func TestSaveAndLoad(t *testing.T) {
	b := open(t)
	one := b.imported(t, "lab/one:1", tar.Header{Name: "f"}, tar.Header{Name: ".wh.gone"})
	two := b.imported(t, "two", tar.Header{Name: "g"})
	must(t, b.Tag("two", "two:other"))
	all := b.saved(t, "lab/one:1", string(two.ID))
	if again := b.saved(t, "lab/one:1", string(two.ID)); !bytes.Equal(all, again) {
		t.Error("the same images make different archives")
	}
	layout := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(all)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		text, err := io.ReadAll(r)
		must(t, err)
		if h.Name != "manifest.json" {
			layout[h.Name] = string(text)
		}
	}
	for form, archive := range map[string][]byte{"docker": all, "oci": packed(t, layout)} {
		other := open(t)
		var said messages
		must(t, other.Load(bytes.NewReader(archive), ocispec.Platform{}, said.tell))
		if diff := cmp.Diff(messages{"Loaded image: lab/one:1", "Loaded image ID: " + string(two.ID)}, said); diff != "" {
			t.Errorf("%s: %s", form, diff)
		}
		got, err := other.Get("lab/one:1")
		must(t, err)
		if got.ID != one.ID || got.Size != one.Size {
			t.Errorf("%s: %+v, want %+v", form, got, one)
		}
		if _, err := other.Get(two.ID.Encoded()[:12]); err != nil {
			t.Error(form, err)
		}
	}
}

// Other tools write other archives: compressed layers, links, several names.
func TestLoadOfOthers(t *testing.T) {
	image, err := random.Image(1000, 3)
	must(t, err)
	var out bytes.Buffer
	tag, err := name.NewTag("other/tool:2")
	must(t, err)
	must(t, tarball.Write(tag, image, &out))
	b := open(t)
	var said messages
	must(t, b.Load(&out, ocispec.Platform{}, said.tell))
	if !slices.Equal(said, messages{"Loaded image: other/tool:2"}) {
		t.Error(said)
	}
	id, err := image.ConfigName()
	must(t, err)
	got, err := b.Get("other/tool:2")
	must(t, err)
	if got.ID.String() != id.String() || len(got.Lower) != 3 {
		t.Errorf("%+v", got)
	}
}

func TestLoadRefusals(t *testing.T) {
	image, err := random.Image(10, 1)
	must(t, err)
	broken, err := mutate.ConfigFile(image, &v1.ConfigFile{RootFS: v1.RootFS{DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}}}})
	must(t, err)
	config, err := broken.RawConfigFile()
	must(t, err)
	list := func(v any) string {
		text, err := json.Marshal(v)
		must(t, err)
		return string(text)
	}
	b := open(t)
	for want, archive := range map[string][]byte{
		"invalid archive: it has neither":              packed(t, map[string]string{"x": "y"}),
		"invalid archive: reading manifest.json":       packed(t, map[string]string{"manifest.json": "{"}),
		"invalid archive: nosuch is not in":            packed(t, map[string]string{"manifest.json": list([]saved{{Config: "nosuch"}})}),
		"invalid archive: ../../../etc/passwd is not":  packed(t, map[string]string{"manifest.json": list([]saved{{Config: "../../../etc/passwd"}})}),
		"invalid archive: entry \"../x\" leads out":    packed(t, map[string]string{"../x": "y"}),
		"invalid archive: a configuration of 1 layers": packed(t, map[string]string{"manifest.json": list([]saved{{Config: "c"}}), "c": string(config)}),
		"invalid layer: its digest is":                 packed(t, map[string]string{"manifest.json": list([]saved{{Config: "c", Layers: []string{"l"}}}), "c": string(config), "l": string(archived(t))}),
		"invalid image configuration: it has no":       packed(t, map[string]string{"manifest.json": list([]saved{{Config: "c"}}), "c": "{}"}),
		"unpacking archive: ":                          []byte(strings.Repeat("no archive ", 100)),
	} {
		err := b.Load(bytes.NewReader(archive), ocispec.Platform{}, func(jsonstream.Message) {})
		if !errors.Is(err, linkspan.ErrInvalid) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if len(b.List()) > 0 {
		t.Error(b.List())
	}
}

func TestChange(t *testing.T) {
	var i Image
	must(t, Change(&i.Spec.Config, []string{
		"CMD [\"a\",\"b\"]", "entrypoint x y", "ENV A=1 B=\"2 3\"\nENV C 4 5", "LABEL k=v", "EXPOSE 80 53/udp", "VOLUME /data", "USER me", "WORKDIR /w", "STOPSIGNAL SIGINT",
	}))
	c := i.Spec.Config
	want := []any{[]string{"a", "b"}, []string{"/bin/sh", "-c", "x y"}, []string{"A=1", "B=2 3", "C=4 5"}, map[string]string{"k": "v"}, map[string]struct{}{"80/tcp": {}, "53/udp": {}}, map[string]struct{}{"/data": {}}, "me", "/w", "SIGINT"}
	if diff := cmp.Diff(want, []any{c.Cmd, c.Entrypoint, c.Env, c.Labels, c.ExposedPorts, c.Volumes, c.User, c.WorkingDir, c.StopSignal}); diff != "" {
		t.Error(diff)
	}
	must(t, Change(&i.Spec.Config, []string{`ENV A=$A:${B} D='\$A' E=$NONE`}))
	if got := strings.Join(i.Spec.Config.Env, " "); !strings.Contains(got, "A=1:2 3") || !strings.Contains(got, "D=$A") || !strings.Contains(got, "E=") {
		t.Errorf("environment %s", got)
	}
	for text, want := range map[string]dockerspec.HealthcheckConfig{
		"NONE": {Test: []string{"NONE"}},
		"--interval=1s --timeout=2m --retries=3 CMD cat /status":       {Test: []string{"CMD-SHELL", "cat /status"}, Interval: time.Second, Timeout: 2 * time.Minute, Retries: 3},
		`--start-period=4s --start-interval=5ms   CMD ["cat", "/a b"]`: {Test: []string{"CMD", "cat", "/a b"}, StartPeriod: 4 * time.Second, StartInterval: 5 * time.Millisecond},
	} {
		must(t, Change(&i.Spec.Config, []string{"HEALTHCHECK " + text}))
		if diff := cmp.Diff(&want, i.Spec.Config.Healthcheck); diff != "" {
			t.Error(text, diff)
		}
	}
	for _, bad := range []string{"HEALTHCHECK CMD", "HEALTHCHECK NONE x", "HEALTHCHECK --nosuch=1 NONE", "HEALTHCHECK --retries=x NONE", "RUN x", "ENV", "ENV A", "LABEL =x", `LABEL a="b`, "EXPOSE"} {
		if err := Change(&i.Spec.Config, []string{bad}); !errors.Is(err, linkspan.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestNamesByPattern(t *testing.T) {
	i := Image{Tags: []string{"box:latest", "utest/docker:tag2", "utest:5000/docker:tag3", "utest:tag1"}}
	for pattern, want := range map[string]string{
		"utest*/*": "utest/docker:tag2 utest:5000/docker:tag3", "utest*": "utest:tag1", "utest": "utest:tag1", "*5000*/*": "utest:5000/docker:tag3", "none": "",
	} {
		got := i.Only([]string{pattern})
		if strings.Join(got.Tags, " ") != want || i.Matches(pattern) != (want != "") {
			t.Errorf("%s: %v, want %s", pattern, got.Tags, want)
		}
	}
	if len(i.Tags) != 4 || i.Tags[0] != "box:latest" {
		t.Errorf("the image itself has changed: %v", i.Tags)
	}
	if _, err := ParseName("sha256:tag"); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("a name like a digest: %v", err)
	}
}
