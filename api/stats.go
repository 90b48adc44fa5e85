package api

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
)

// sampling is the time between two samples of a stream, as with Docker.
const sampling = time.Second

// stats answers with what a container uses: once, or every second until the
// client or the container is gone. Rates are for the client to reckon, from a
// sample and the one before.
func (s *Server) stats(w http.ResponseWriter, r *http.Request) error {
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return err
	}
	id := string(c.ID)
	stream := !r.URL.Query().Has("stream") || boolean(r, "stream")
	oneShot := boolean(r, "one-shot")
	if stream && oneShot && r.URL.Query().Has("stream") {
		return linkspan.Errorf(linkspan.ErrInvalid, "cannot have stream=true and one-shot=true")
	}
	ctx, cancel := s.streaming(r)
	defer cancel()
	sample, err := s.containers.Stats(ctx, id)
	if err != nil {
		return err
	}
	if oneShot || (!stream && sample.Read.IsZero()) {
		writeJSON(w, http.StatusOK, sample)
		return nil
	}
	ticker := time.NewTicker(sampling)
	defer ticker.Stop()
	next := func(before container.StatsResponse) (container.StatsResponse, error) {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return before, ctx.Err()
		}
		now, failed := s.containers.Stats(ctx, id)
		now.PreRead, now.PreCPUStats = before.Read, before.CPUStats
		return now, failed
	}
	if !stream {
		if sample, err = next(sample); err == nil {
			writeJSON(w, http.StatusOK, sample)
		}
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	control, encoder := http.NewResponseController(w), json.NewEncoder(w)
	for err == nil {
		// See watchEvents.
		control.SetWriteDeadline(time.Now().Add(s.patience)) //nolint:errcheck // see watchEvents
		if encoder.Encode(sample) != nil || control.Flush() != nil {
			return nil //nolint:nilerr // the client has gone
		}
		sample, err = next(sample)
	}
	return nil //nolint:nilerr // the container has gone, and the answer has begun
}

func (s *Server) updateContainer(w http.ResponseWriter, r *http.Request) error {
	var request container.UpdateConfig
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	if versionOf(r) < 40 {
		request.PidsLimit = nil
	}
	warnings, err := s.containers.Update(acting(r), variable(r, "name"), request)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, container.UpdateResponse{Warnings: append([]string{}, warnings...)})
	return nil
}
