package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime"
)

// leaving tells of a container that nothing can be done with any more.
func leaving(status container.ContainerState) bool {
	return status == container.StateRemoving || status == container.StateDead
}

// errLeaving is of no kind, and so a 500, as with Docker.
func errLeaving(id linkspan.ID) error {
	return errors.New("Container " + string(id) + " is marked for removal and cannot be connected or disconnected to the network") //nolint:staticcheck // Docker's words
}

// done answers a verb that has nothing to say.
func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (s *Server) startContainer(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > 7 { // a HostConfig of long ago; null and {} are let through
		return linkspan.Errorf(linkspan.ErrInvalid, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if r.URL.Query().Get("checkpoint") != "" {
		return linkspan.Errorf(linkspan.ErrNotImplemented, "checkpoints are not supported")
	}
	return done(w, s.containers.Start(r.Context(), variable(r, "name")))
}

// stopOptions reads the t and signal of a stop or restart.
func stopOptions(r *http.Request) (runtime.StopOptions, error) {
	var o runtime.StopOptions
	if versionOf(r) >= 42 {
		o.Signal = r.URL.Query().Get("signal")
	}
	if r.URL.Query().Get("t") == "" {
		return o, nil
	}
	seconds, err := number(r, "t", 0)
	timeout := time.Duration(seconds) * time.Second
	o.Timeout = &timeout
	return o, err
}

func (s *Server) stopContainer(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	return done(w, s.containers.Stop(acting(r), variable(r, "name"), o))
}

func (s *Server) restartContainer(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	return done(w, s.restart(acting(r), variable(r, "name"), o))
}

func (s *Server) restart(ctx context.Context, ref string, o runtime.StopOptions) error {
	c, err := s.containers.Get(ref)
	if err != nil {
		return err
	}
	// By ID: the name might go to another container in between.
	id := string(c.ID)
	o.Restart = true
	if err := s.containers.Stop(ctx, id, o); err != nil && !errors.Is(err, linkspan.ErrNotModified) {
		return err
	}
	if err := s.containers.Start(ctx, id); err != nil && !errors.Is(err, linkspan.ErrNotModified) {
		return err
	}
	s.events.Container(runtime.Event{Action: "restart", ID: c.ID, Attributes: eventAttributes(c), Time: s.now()})
	return nil
}

// eventAttributes are those of every event of a container.
func eventAttributes(c runtime.Container) map[string]string {
	attributes := map[string]string{}
	for key, value := range c.Config.Labels {
		attributes[key] = value
	}
	attributes["image"], attributes["name"] = c.Config.Image, c.Name
	return attributes
}

func (s *Server) killContainer(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.containers.Kill(acting(r), variable(r, "name"), r.URL.Query().Get("signal")))
}

func (s *Server) pauseContainer(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.containers.Pause(r.Context(), variable(r, "name")))
}

func (s *Server) unpauseContainer(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.containers.Unpause(acting(r), variable(r, "name")))
}

// renameContainer renames in both places; if the second refuses, the first is
// put back.
func (s *Server) renameContainer(w http.ResponseWriter, r *http.Request) error {
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return err
	}
	ctx := acting(r)
	if err := s.containers.Rename(ctx, string(c.ID), r.URL.Query().Get("name")); err != nil {
		return err
	}
	renamed, err := s.containers.Get(string(c.ID))
	if err != nil {
		return err
	}
	if err := s.networks.Rename(c.ID, renamed.Name); err != nil {
		return errors.Join(err, s.containers.Rename(ctx, string(c.ID), c.Name))
	}
	return done(w, nil)
}

func (s *Server) removeContainer(w http.ResponseWriter, r *http.Request) error {
	if boolean(r, "link") {
		if _, err := s.containers.Get(variable(r, "name")); err != nil {
			return err
		}
		return done(w, s.networks.Unlink(variable(r, "name")))
	}
	return done(w, s.containers.Remove(acting(r), variable(r, "name"), runtime.RemoveOptions{Force: boolean(r, "force"), Volumes: boolean(r, "v")}))
}

func (s *Server) pruneContainers(w http.ResponseWriter, r *http.Request) error {
	f, until, err := pruneFilters(r, s.now())
	if err != nil {
		return err
	}
	if !s.pruningContainers.CompareAndSwap(false, true) {
		return linkspan.Errorf(linkspan.ErrConflict, "a prune operation is already running")
	}
	defer s.pruningContainers.Store(false)
	var report container.PruneReport
	for _, c := range s.containers.List() {
		if r.Context().Err() != nil {
			break
		}
		if c.State.Active() || !f.prunable(c.Config.Labels, c.Created, until) {
			continue
		}
		written, _, err := s.containers.Size(r.Context(), string(c.ID), false)
		if err == nil {
			err = s.containers.Remove(acting(r), string(c.ID), runtime.RemoveOptions{})
		}
		if err != nil {
			s.logf("pruning container %s: %v", c.Name, err)
			continue
		}
		report.SpaceReclaimed += uint64(written)
		report.ContainersDeleted = append(report.ContainersDeleted, string(c.ID))
	}
	s.events.Container(runtime.Event{Action: "prune", Attributes: map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)}, Time: s.now()})
	writeJSON(w, http.StatusOK, report)
	return nil
}

// waitContainer answers its header as soon as it counts exits: the client
// starts the container when it has seen it.
func (s *Server) waitContainer(w http.ResponseWriter, r *http.Request) error {
	condition := container.WaitCondition(r.URL.Query().Get("condition"))
	switch condition {
	case "", container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid condition: %q", condition)
	}
	waiter, err := s.containers.Waiter(variable(r, "name"), condition)
	if err != nil {
		return err
	}
	ctx, cancel := s.streaming(r)
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if http.NewResponseController(w).Flush() != nil {
		return nil // the client has gone
	}
	state, err := waiter.Wait(ctx)
	answer := container.WaitResponse{StatusCode: int64(state.ExitCode)}
	switch {
	case err != nil && s.closing.Err() == nil:
		return nil // the client has gone
	case err != nil:
		answer.Error = &container.WaitExitError{Message: "the daemon shuts down; the container goes on"}
	}
	json.NewEncoder(w).Encode(answer) //nolint:errcheck,errchkjson // a client that has gone wants no answer
	return nil
}

func (s *Server) top(w http.ResponseWriter, r *http.Request) error {
	top, err := s.containers.Top(r.Context(), variable(r, "name"), r.URL.Query().Get("ps_args"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, top)
	return nil
}
