package api

import (
	"io"
	"net/http"
	"strings"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/image"
)

func transferRoutes() []Route {
	return []Route{
		{"POST", "/images/create", (*Server).createImage},
		{"POST", "/images/load", (*Server).loadImages},
		{"GET", "/images/get", (*Server).saveImages},
		{"GET", "/images/{name:.*}/get", (*Server).saveImage},
		{"POST", "/images/{name:.*}/push", (*Server).pushImage},
		{"GET", "/distribution/{name:.*}/json", (*Server).inspectDistribution},
		{"POST", "/auth", (*Server).login},
	}
}

// createImage pulls an image, or makes one of an archive in the body.
func (s *Server) createImage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	platform, err := image.ParsePlatform(q.Get("platform"))
	if err != nil {
		return err
	}
	switch {
	case q.Get("fromImage") != "":
		return s.pull(w, r, platform)
	case q.Get("fromSrc") == "-":
		return s.importImage(w, r, platform)
	case q.Get("fromSrc") != "":
		return linkspan.Errorf(linkspan.ErrNotImplemented, "importing from %q is not supported: fetch it and import what came (docker import - NAME)", q.Get("fromSrc"))
	}
	return linkspan.Errorf(linkspan.ErrInvalid, "neither fromImage nor fromSrc says what the image is to be made of")
}

func (s *Server) pull(w http.ResponseWriter, r *http.Request, platform ocispec.Platform) error {
	ref, tag := r.URL.Query().Get("fromImage"), r.URL.Query().Get("tag")
	if strings.HasPrefix(tag, "sha256:") {
		ref += "@" + tag
	} else {
		ref = image.JoinName(ref, tag)
	}
	ctx, cancel := s.streaming(r)
	defer cancel()
	lines := s.jsonLines(w)
	return lines.end(s.images.Pull(ctx, ref, platform, credentials(r), lines.tell))
}

// credentials reads what clients send beside a request. What cannot be read is
// none, as with Docker: the registry says what it thinks of that.
func credentials(r *http.Request) image.Credentials {
	c, err := authconfig.Decode(r.Header.Get(registry.AuthHeader))
	if err != nil || c == nil {
		return image.Credentials{}
	}
	return *c
}

func (s *Server) importImage(w http.ResponseWriter, r *http.Request, platform ocispec.Platform) error {
	q := r.URL.Query()
	if platform.OS != "" && platform.OS != "linux" {
		return linkspan.Errorf(linkspan.ErrInvalid, "operating system is not supported: %s", platform.OS)
	}
	o := image.ImportOptions{Name: image.JoinName(q.Get("repo"), q.Get("tag")), Message: q.Get("message"), Platform: platform}
	if err := image.Change(&o.Config, q["changes"]); err != nil {
		return err
	}
	lines := s.jsonLines(w)
	i, err := s.images.Import(r.Body, o)
	if err == nil {
		lines.tell(jsonstream.Message{Status: string(i.ID)})
	}
	return lines.end(err)
}

func (s *Server) loadImages(w http.ResponseWriter, r *http.Request) error {
	platform, err := platformOf(r)
	if err != nil {
		return err
	}
	lines := s.jsonLines(w)
	tell := lines.tell
	if boolean(r, "quiet") {
		tell = func(m jsonstream.Message) {
			if m.Stream != "" {
				lines.tell(m)
			}
		}
	}
	return lines.end(s.images.Load(r.Body, platform, tell))
}

// platformOf reads the platform of a load or save, which is JSON, or text.
func platformOf(r *http.Request) (ocispec.Platform, error) {
	texts := r.URL.Query()["platform"]
	var p ocispec.Platform
	if len(texts) > 1 {
		return p, linkspan.Errorf(linkspan.ErrInvalid, "multiple platform parameters not supported")
	}
	text := strings.Join(texts, "")
	if !strings.HasPrefix(text, "{") {
		return image.ParsePlatform(text)
	}
	if err := unmarshal(text, &p); err != nil {
		return p, linkspan.Errorf(linkspan.ErrInvalid, "invalid platform: %w", err)
	}
	return p, nil
}

func (s *Server) saveImages(w http.ResponseWriter, r *http.Request) error {
	return s.save(w, r, r.URL.Query()["names"])
}

func (s *Server) saveImage(w http.ResponseWriter, r *http.Request) error {
	return s.save(w, r, []string{variable(r, "name")})
}

func (s *Server) save(w http.ResponseWriter, r *http.Request, refs []string) error {
	if _, err := platformOf(r); err != nil {
		return err
	}
	body := s.body(w, r, "application/x-tar")
	return body.end(s.images.Save(refs, func() io.Writer { return body }))
}

func (s *Server) pushImage(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get(registry.AuthHeader) != "" {
		if _, err := authconfig.Decode(r.Header.Get(registry.AuthHeader)); err != nil {
			return linkspan.Errorf(linkspan.ErrInvalid, "bad %s header: %w", registry.AuthHeader, err)
		}
	}
	ref, tag := variable(r, "name"), r.URL.Query().Get("tag")
	ctx, cancel := s.streaming(r)
	defer cancel()
	lines := s.jsonLines(w)
	all := tag == "" && !strings.Contains(ref[strings.LastIndex(ref, "/")+1:], ":")
	return lines.end(s.images.Push(ctx, image.JoinName(ref, tag), all, credentials(r), lines.tell))
}

func (s *Server) inspectDistribution(w http.ResponseWriter, r *http.Request) error {
	found, err := s.images.Remote(r.Context(), variable(r, "name"), credentials(r))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, found)
	return nil
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) error {
	var c image.Credentials
	if err := readJSON(w, r, &c); err != nil {
		return err
	}
	if err := s.images.Login(r.Context(), c); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, registry.AuthResponse{Status: "Login Succeeded"})
	return nil
}
