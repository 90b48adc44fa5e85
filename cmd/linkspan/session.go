package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	mobyterm "github.com/moby/term"
)

// session is the time that a client holds the streams of a process.
//
//	create ──► attach ──► wait ──► start ──► copy ──► status
//	                                 │          └──► detach keys: leave it running
//	                                 └──► refused: no status to wait for
type session struct {
	id                                         string
	tty, stdin, stdout, stderr, sigProxy, logs bool
	keys                                       string // that detach; "" for ctrl-p ctrl-q
	condition                                  container.WaitCondition
	autoRemove                                 bool // the daemon removes the container when it ends
}

// startAttached starts a container with its streams held and returns its
// status as an exit.
func (a *app) startAttached(ctx context.Context, daemon *engine, s session) error {
	held, err := daemon.ContainerAttach(ctx, s.id, client.ContainerAttachOptions{
		Stream: true, Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr, DetachKeys: s.keys, Logs: s.logs,
	})
	if err != nil {
		return err
	}
	defer held.Close()
	waitCtx, stopWaiting := context.WithCancel(ctx)
	defer stopWaiting()
	waited := daemon.ContainerWait(waitCtx, s.id, client.ContainerWaitOptions{Condition: s.condition})

	streams, err := a.newStreams(held.HijackedResponse, s)
	if err != nil {
		return err
	}
	defer streams.restore()
	// The signals are caught before the start: one that comes in between is
	// for the process too.
	if s.sigProxy {
		defer a.proxySignals(ctx, daemon, s.id)()
	}
	if _, err := daemon.ContainerStart(ctx, s.id, client.ContainerStartOptions{}); err != nil {
		if s.autoRemove {
			// The name is free again only when the daemon has removed it.
			awaitRemoval(ctx, waited)
		}
		return exit{startStatus(err), err}
	}
	if s.tty {
		defer a.followSize(ctx, func(ctx context.Context, height, width uint) error {
			_, err := daemon.ContainerResize(ctx, s.id, client.ContainerResizeOptions{Height: height, Width: width})
			return err
		})()
	}
	return finish(ctx, streams, waited)
}

// finish copies until the output ends and returns the status of the process.
func finish(ctx context.Context, streams *streams, waited client.ContainerWaitResult) error {
	err := streams.copy(ctx)
	streams.restore()
	if errors.As(err, &mobyterm.EscapeError{}) {
		return nil // the user left; the container runs on
	}
	if err != nil {
		return err
	}
	return exitOf(ctx, waited)
}

// exitOf waits for the end of a container and returns its status as an exit.
func exitOf(ctx context.Context, waited client.ContainerWaitResult) error {
	select {
	case end := <-waited.Result:
		if end.Error != nil && end.Error.Message != "" {
			return exit{statusDaemon, fmt.Errorf("waiting for container: %s", end.Error.Message)}
		}
		if end.StatusCode != 0 {
			return exit{code: int(end.StatusCode)}
		}
		return nil
	case err := <-waited.Error:
		return exit{statusDaemon, fmt.Errorf("waiting for container: %w", err)}
	case <-ctx.Done():
		return ctx.Err()
	}
}

func awaitRemoval(ctx context.Context, waited client.ContainerWaitResult) {
	select {
	case <-waited.Result:
	case <-waited.Error:
	case <-ctx.Done():
	}
}

// streams joins this command's terminal to a process. One goroutine calls
// copy; restore may be called any number of times.
type streams struct {
	held    client.HijackedResponse
	in      io.Reader // nil: the process's input is not held
	out     io.Writer
	err     io.Writer
	tty     bool
	restore func()
}

func (a *app) newStreams(held client.HijackedResponse, s session) (*streams, error) {
	joined := &streams{held: held, out: io.Discard, err: io.Discard, tty: s.tty, restore: func() {}}
	if s.stdout {
		joined.out = a.out
	}
	if s.stderr {
		joined.err = a.err
	}
	if !s.stdin {
		return joined, nil
	}
	joined.in = a.in
	if !s.tty {
		return joined, nil
	}
	keys := []byte{16, 17} // ctrl-p, ctrl-q
	if s.keys != "" {
		var err error
		if keys, err = mobyterm.ToBytes(s.keys); err != nil {
			return nil, fmt.Errorf("invalid --detach-keys %q: %w", s.keys, err)
		}
	}
	joined.in = mobyterm.NewEscapeProxy(a.in, keys)
	restore, err := a.raw()
	if err != nil {
		return nil, err
	}
	joined.restore = restore
	return joined, nil
}

// copy moves bytes both ways until the output ends, the context does, or the
// user types the detach keys, which is an EscapeError.
func (s *streams) copy(ctx context.Context) error {
	output := make(chan error, 1)
	go func() {
		var err error
		if s.tty {
			_, err = io.Copy(s.out, s.held.Reader)
		} else {
			_, err = stdcopy.StdCopy(s.out, s.err, s.held.Reader)
		}
		if err != nil {
			err = fmt.Errorf("reading output: %w", err)
		}
		output <- err
	}()
	detached := make(chan error, 1)
	go func() {
		if s.in != nil {
			_, err := io.Copy(s.held.Conn, s.in)
			if errors.As(err, &mobyterm.EscapeError{}) {
				detached <- err
				return
			}
			// A process that is gone reads no input: its status says the rest.
		}
		_ = s.held.CloseWrite()
	}()
	select {
	case err := <-output:
		return err
	case err := <-detached:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
