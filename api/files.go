package api

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime"
	"github.com/linkspan/linkspan/runtime/image"
)

func fileRoutes() []Route {
	return []Route{
		{"GET", "/containers/{name}/changes", (*Server).changes},
		{"GET", "/containers/{name}/export", (*Server).export},
		{"HEAD", "/containers/{name}/archive", (*Server).statPath},
		{"GET", "/containers/{name}/archive", (*Server).copyOut},
		{"PUT", "/containers/{name}/archive", (*Server).copyIn},
		{"POST", "/commit", (*Server).commit},
	}
}

// pathOf reads the path that an archive request is about.
func pathOf(r *http.Request) (string, error) {
	path := r.URL.Query().Get("path")
	switch {
	case path == "":
		return "", linkspan.Errorf(linkspan.ErrInvalid, "bad parameter: path cannot be empty")
	case strings.ContainsRune(path, 0):
		return "", linkspan.Errorf(linkspan.ErrInvalid, "bad parameter: path %q contains a zero byte", path)
	}
	return path, nil
}

// describe puts what is at the path into a header, as clients expect it.
func describe(w http.ResponseWriter, stat container.PathStat) error {
	text, err := json.Marshal(stat)
	if err != nil {
		return err
	}
	w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(text))
	return nil
}

func (s *Server) statPath(w http.ResponseWriter, r *http.Request) error {
	path, err := pathOf(r)
	if err != nil {
		return err
	}
	stat, err := s.containers.PathStat(r.Context(), variable(r, "name"), path)
	if err != nil {
		return err
	}
	if err := describe(w, stat); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) copyOut(w http.ResponseWriter, r *http.Request) error {
	path, err := pathOf(r)
	if err != nil {
		return err
	}
	body := s.body(w, r, "application/x-tar")
	return body.end(s.containers.CopyOut(r.Context(), variable(r, "name"), path, func(stat container.PathStat) io.Writer {
		if err := describe(w, stat); err != nil {
			s.logf("describing %s: %v", path, err)
		}
		return body
	}))
}

func (s *Server) copyIn(w http.ResponseWriter, r *http.Request) error {
	path, err := pathOf(r)
	if err != nil {
		return err
	}
	content := patientReader{Reader: r.Body, control: http.NewResponseController(w), patience: s.patience}
	err = s.containers.CopyIn(r.Context(), variable(r, "name"), path, content, boolean(r, "noOverwriteDirNonDir"), boolean(r, "copyUIDGID"))
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// patientReader gives up on a client that sends nothing for a while: others
// wait for the container.
type patientReader struct {
	io.Reader
	control  *http.ResponseController
	patience time.Duration
}

func (p patientReader) Read(b []byte) (int, error) {
	p.control.SetReadDeadline(time.Now().Add(p.patience)) //nolint:errcheck // what has none does not block
	n, err := p.Reader.Read(b)
	p.control.SetReadDeadline(time.Time{}) //nolint:errcheck // see above
	return n, err
}

func (s *Server) export(w http.ResponseWriter, r *http.Request) error {
	body := s.body(w, r, "application/octet-stream")
	return body.end(s.containers.Export(r.Context(), variable(r, "name"), func() io.Writer { return body }))
}

func (s *Server) changes(w http.ResponseWriter, r *http.Request) error {
	list, err := s.containers.Changes(r.Context(), variable(r, "name"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

// commit makes an image of what a container has changed.
func (s *Server) commit(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	var given *container.Config
	if err := readJSON(w, r, &given); err != nil {
		return err
	}
	c, err := s.containers.Get(q.Get("container"))
	if err != nil {
		return err
	}
	if err := image.CheckParent(c.Image); err != nil {
		return err
	}
	config := *c.Config
	if given != nil {
		base := image.Image{}
		base.Spec.Config = image.ConfigOf(c.Config)
		if err := base.Merge(given); err != nil {
			return err
		}
		config = *given
	}
	o := image.CommitOptions{
		Parent: c.Image, Name: image.JoinName(q.Get("repo"), q.Get("tag")), Config: image.ConfigOf(&config), Author: q.Get("author"),
		Comment: q.Get("comment"), CreatedBy: commandLine(c.Config),
	}
	if err := image.Change(&o.Config, q["changes"]); err != nil {
		return err
	}
	made, err := s.commitLayer(r, c, o, q.Get("pause") == "" || boolean(r, "pause"))
	if err != nil {
		return err
	}
	attributes := eventAttributes(c)
	attributes["comment"], attributes["imageID"], attributes["imageRef"] = o.Comment, string(made.ID), o.Name
	s.events.Container(runtime.Event{Action: "commit", ID: c.ID, Attributes: attributes, Time: s.now()})
	writeJSON(w, http.StatusCreated, container.CommitResponse{ID: string(made.ID)})
	return nil
}

// commitLayer holds a running container still while it is read, if that is
// wanted.
func (s *Server) commitLayer(r *http.Request, c runtime.Container, o image.CommitOptions, pause bool) (image.Image, error) {
	if pause && c.State.Status == container.StateRunning {
		if err := s.containers.Pause(r.Context(), string(c.ID)); err != nil {
			return image.Image{}, err
		}
		defer func() {
			if err := s.containers.Unpause(acting(r), string(c.ID)); err != nil {
				s.logf("resuming container %s after a commit: %v", c.Name, err)
			}
		}()
	}
	reader, writer := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		writer.CloseWithError(s.containers.Layer(r.Context(), string(c.ID), writer)) //nolint:errcheck // it returns none
	}()
	made, err := s.images.Commit(reader, o)
	reader.Close() //nolint:errcheck // it returns none
	<-done
	return made, err
}
