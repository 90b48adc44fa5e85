package api

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/moby/moby/api/pkg/stdcopy"
	"golang.org/x/net/websocket"

	"github.com/linkspan/linkspan/runtime"
)

// attachWebsocket is attach for browsers: each message is a piece of a stream,
// without Docker's frames.
func (s *Server) attachWebsocket(w http.ResponseWriter, r *http.Request) error {
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return err
	}
	if _, err := detachKeys(r.URL.Query().Get("detachKeys")); err != nil {
		return err
	}
	want := runtime.AttachOptions{Stdin: boolean(r, "stdin"), Stdout: boolean(r, "stdout"), Stderr: boolean(r, "stderr"), Logs: boolean(r, "logs")}
	if !want.Stdin && !want.Stdout && !want.Stderr { // what browsers' scripts leave out
		want.Stdin, want.Stdout, want.Stderr = true, true, true
	}
	ctx, cancel := s.streaming(r)
	defer cancel()
	stream, err := s.containers.Attach(ctx, string(c.ID), want)
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // it may be closed already
	binary := versionOf(r) >= 28
	websocket.Server{Handler: func(conn *websocket.Conn) {
		if binary {
			conn.PayloadType = websocket.BinaryFrame
		}
		if !s.hijacked.add(conn) {
			return
		}
		defer s.hijacked.remove(conn)
		if !c.Config.Tty {
			stream = unframe(stream)
		}
		s.join(conn, conn, stream, func(context.Context) {})
	}}.ServeHTTP(w, r)
	return nil
}

// unframed is a stream whose output is both of the process's, mixed.
type unframed struct {
	runtime.Stream
	output *io.PipeReader
}

func unframe(stream runtime.Stream) unframed {
	reader, writer := io.Pipe()
	go func() {
		_, err := stdcopy.StdCopy(writer, writer, stream)
		writer.CloseWithError(err) //nolint:errcheck // never fails
	}()
	return unframed{Stream: stream, output: reader}
}

func (u unframed) Read(p []byte) (int, error) { return u.output.Read(p) }

// Close also ends the goroutine that nobody reads from any more.
func (u unframed) Close() error { return errors.Join(u.output.Close(), u.Stream.Close()) }
