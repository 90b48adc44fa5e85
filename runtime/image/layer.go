package image

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/moby/go-archive"
	"github.com/moby/go-archive/compression"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/durable"
)

// Layer is an unpacked layer and the file that it came from, which push and
// save hand on unchanged.
type Layer struct {
	Diff digest.Digest // of the tar; names the layer
	Blob Blob          // the file as it came; or the tar, if it came as no registry takes it
	Gzip *Blob         // made for a registry, if Blob is not compressed
	Size int64         // bytes of its regular files

	link string // short path of the directory
}

// Blob is a file of the store, as manifests describe it.
type Blob struct {
	Digest    digest.Digest
	MediaType string
	Size      int64 // bytes
}

// blobs are the files that a layer keeps.
func (l Layer) blobs() []digest.Digest {
	if l.Gzip != nil {
		return []digest.Digest{l.Blob.Digest, l.Gzip.Digest}
	}
	return []digest.Digest{l.Blob.Digest}
}

func (s *Store) readLayers() error {
	entries, err := os.ReadDir(s.path("layers"))
	if err != nil {
		return fmt.Errorf("reading layers: %w", err)
	}
	for _, entry := range entries {
		var l Layer
		err := readJSON(s.path("layers", entry.Name(), "layer.json"), &l)
		if err == nil && l.Diff.Encoded() != entry.Name() {
			err = fmt.Errorf("it is of layer %q", l.Diff)
		}
		if err == nil {
			err = s.adopt(l)
		}
		if err != nil {
			s.options.Logf("reading layer %s: %v", entry.Name(), err)
		}
	}
	return nil
}

// adopt gives a layer that is in place its short path. It must be called with
// mu held, or by Open.
func (s *Store) adopt(l Layer) error {
	name := ""
	for n := 8; n <= 64; n += 8 {
		name = l.Diff.Encoded()[:n]
		if holder, taken := s.short[name]; !taken || holder == l.Diff {
			break
		}
	}
	l.link = s.path("l", name)
	target := filepath.Join("..", "layers", l.Diff.Encoded(), "diff")
	if old, err := os.Readlink(l.link); err != nil || old != target {
		if err := os.Remove(l.link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(target, l.link); err != nil {
			return err
		}
	}
	s.short[name] = l.Diff
	s.layers[l.Diff] = l
	return nil
}

// ingest is a set of layers and blobs on their way into an image: they are
// kept until the image is there, or given up.
type ingest struct {
	s       *Store
	release []func()
}

func (s *Store) ingest() *ingest { return &ingest{s: s} }

// done lets go of what has not become part of an image.
func (in *ingest) done() {
	for _, release := range in.release {
		release()
	}
}

func (in *ingest) hold(ids ...digest.Digest) {
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	in.release = append(in.release, in.s.hold(ids...))
}

// counted counts and hashes what is written to it.
type counted struct {
	hash.Hash
	n int64
}

func newCounted() *counted { return &counted{Hash: sha256.New()} }

func (c *counted) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.Hash.Write(p)
}

func (c *counted) digest() digest.Digest { return digest.NewDigest(digest.SHA256, c.Hash) }

// known returns a layer that is there already, and holds it.
func (in *ingest) known(diff digest.Digest) (Layer, bool) {
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	l, ok := in.s.layers[diff]
	if ok {
		in.release = append(in.release, in.s.hold(append(l.blobs(), l.Diff)...))
	}
	return l, ok
}

// layer stores and unpacks one layer as it streams by, compressed or not. want
// is the digest of its tar, or empty for whatever it is.
func (in *ingest) layer(r io.Reader, want digest.Digest) (Layer, error) {
	s := in.s
	dir, err := os.MkdirTemp(s.path("tmp"), "layer-")
	if err != nil {
		return Layer{}, fmt.Errorf("making room for a layer: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the next daemon does what is left
	l, err := unpack(r, dir)
	if err != nil {
		return l, err
	}
	if want != "" && l.Diff != want {
		return l, linkspan.Errorf(linkspan.ErrInvalid, "invalid layer: its digest is %s, and %s was expected", l.Diff, want)
	}
	if err := durable.Replace(filepath.Join(dir, "layer.json"), l, false); err != nil {
		return l, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.layers[l.Diff]; ok {
		in.release = append(in.release, s.hold(append(have.blobs(), have.Diff)...))
		return have, nil
	}
	if err := os.Rename(filepath.Join(dir, "blob"), s.blobPath(l.Blob.Digest)); err != nil {
		return l, fmt.Errorf("keeping a layer: %w", err)
	}
	if err := os.Rename(dir, s.path("layers", l.Diff.Encoded())); err != nil {
		return l, fmt.Errorf("keeping a layer: %w", err)
	}
	if err := s.adopt(l); err != nil {
		return l, fmt.Errorf("keeping a layer: %w", err)
	}
	in.release = append(in.release, s.hold(l.Blob.Digest, l.Diff))
	return s.layers[l.Diff], nil
}

// unpack reads a layer once: into dir/blob as it comes, into dir/diff as files.
func unpack(r io.Reader, dir string) (l Layer, err error) {
	blob, err := os.OpenFile(filepath.Join(dir, "blob"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return l, fmt.Errorf("keeping a layer: %w", err)
	}
	defer blob.Close() //nolint:errcheck // closed below unless something else failed
	diff := filepath.Join(dir, "diff")
	if err := os.Mkdir(diff, 0o755); err != nil {
		return l, fmt.Errorf("unpacking a layer: %w", err)
	}
	buffered := bufio.NewReaderSize(r, 64<<10)
	start, err := buffered.Peek(10)
	if err != nil && !errors.Is(err, io.EOF) {
		return l, readingArchive(err)
	}
	packed, plain := newCounted(), newCounted()
	var source io.Reader = buffered
	var tarred io.Writer = plain
	if l.Blob.MediaType = mediaType(compression.Detect(start)); l.Blob.MediaType != "" {
		source = io.TeeReader(buffered, io.MultiWriter(blob, packed))
	} else {
		l.Blob.MediaType = ocispec.MediaTypeImageLayer
		tarred = io.MultiWriter(plain, blob, packed)
	}
	stream, err := compression.DecompressStream(source)
	if err != nil {
		return l, readingArchive(err)
	}
	defer stream.Close() //nolint:errcheck // it only read
	tee := io.TeeReader(stream, tarred)
	if err := archive.Unpack(tee, diff, &archive.TarOptions{WhiteoutFormat: archive.OverlayWhiteoutFormat}); err != nil {
		return l, readingArchive(err)
	}
	// What follows the end mark of a tar, and of a compressed file, is part of
	// what the digests are of.
	for _, rest := range []io.Reader{tee, source} {
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return l, readingArchive(err)
		}
	}
	if err := blob.Close(); err != nil {
		return l, fmt.Errorf("keeping a layer: %w", err)
	}
	l.Diff, l.Blob.Digest, l.Blob.Size = plain.digest(), packed.digest(), packed.n
	l.Size, err = diskUse(diff)
	return l, err
}

// mediaType is that of a layer as it came, or "" for one that came in a form
// that no registry takes.
func mediaType(c compression.Compression) string {
	switch c {
	case compression.None:
		return ocispec.MediaTypeImageLayer
	case compression.Gzip:
		return ocispec.MediaTypeImageLayerGzip
	case compression.Zstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ""
}

// readingArchive tells the client's faults from the disk's.
func readingArchive(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	if errors.As(err, &path) || errors.As(err, &link) {
		if errno := errnoOf(err); errno != 0 && isOurs(errno) {
			return fmt.Errorf("unpacking archive: %w", err)
		}
	}
	return linkspan.Errorf(linkspan.ErrInvalid, "unpacking archive: %w", err)
}

// diskUse adds up the regular files below a directory, each once.
func diskUse(dir string) (int64, error) {
	total, seen := int64(0), map[uint64]bool{}
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if inode, links := inodeOf(info); links > 1 {
			if seen[inode] {
				return nil
			}
			seen[inode] = true
		}
		total += info.Size()
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measuring a layer: %w", err)
	}
	return total, nil
}

// blob stores a small file, such as a configuration, and holds it.
func (in *ingest) blob(content []byte) (digest.Digest, error) {
	d := digest.FromBytes(content)
	in.hold(d)
	name := in.s.blobPath(d)
	if _, err := os.Stat(name); err == nil {
		return d, nil
	}
	temporary := in.s.path("tmp", "blob-"+d.Encoded()+"-"+strconv.Itoa(os.Getpid()))
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return d, fmt.Errorf("keeping %s: %w", d, err)
	}
	if err := os.Rename(temporary, name); err != nil {
		return d, fmt.Errorf("keeping %s: %w", d, err)
	}
	return d, nil
}
