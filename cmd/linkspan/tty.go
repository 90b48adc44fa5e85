package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	ossignal "os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"github.com/moby/sys/signal"
	"golang.org/x/term"
)

// needTerminal refuses -it on an input that is none: the process would wait
// for keys that cannot come.
func (a *app) needTerminal() error {
	if _, ok := terminal(a.in); !ok {
		return errors.New("the input device is not a TTY: leave -t out when the input is a pipe or a file")
	}
	return nil
}

// raw hands the terminal's keys to the process unread. The function that it
// returns undoes that, once.
func (a *app) raw() (func(), error) {
	fd, ok := terminal(a.in)
	if !ok {
		return func() {}, nil
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("setting terminal to raw mode: %w", err)
	}
	return sync.OnceFunc(func() {
		if err := term.Restore(fd, before); err != nil {
			fmt.Fprintln(a.err, "linkspan: restoring terminal:", err)
		}
	}), nil
}

// size returns the lines and columns of the terminal that output goes to.
func (a *app) size() (height, width uint, ok bool) {
	fd, ok := terminal(a.out)
	if !ok {
		return 0, 0, false
	}
	columns, lines, err := term.GetSize(fd)
	if err != nil || columns == 0 || lines == 0 {
		return 0, 0, false
	}
	return uint(lines), uint(columns), true
}

// followSize tells the process the size of the terminal, now and after each
// change, until the function that it returns is called.
func (a *app) followSize(ctx context.Context, resize func(ctx context.Context, height, width uint) error) func() {
	if _, _, ok := a.size(); !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	changes := make(chan os.Signal, 1)
	ossignal.Notify(changes, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.sendSize(ctx, resize)
		for {
			select {
			case <-changes:
				a.sendSize(ctx, resize)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		ossignal.Stop(changes)
		cancel()
		<-done
	}
}

// sendSize tries a few times: the process may not have its terminal yet.
func (a *app) sendSize(ctx context.Context, resize func(ctx context.Context, height, width uint) error) {
	for wait := 10 * time.Millisecond; wait <= 160*time.Millisecond; wait *= 2 {
		height, width, ok := a.size()
		if !ok || resize(ctx, height, width) == nil {
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// proxySignals sends the signals that this command gets to the process in its
// stead, until the function that it returns is called.
func (a *app) proxySignals(ctx context.Context, daemon *engine, id string) func() {
	signals := make(chan os.Signal, 128)
	signal.CatchAll(signals)
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case caught := <-signals:
				a.forward(ctx, daemon, id, caught)
			case <-stop:
				return
			}
		}
	}()
	return func() {
		signal.StopCatch(signals)
		close(stop)
		<-done
	}
}

// forward sends one signal on. Those that the kernel or the Go runtime sends
// to this very process mean nothing to another.
func (a *app) forward(ctx context.Context, daemon *engine, id string, caught os.Signal) {
	number, ok := caught.(syscall.Signal)
	if !ok || number == syscall.SIGCHLD || number == syscall.SIGPIPE || number == syscall.SIGURG || number == syscall.SIGWINCH {
		return
	}
	name := ""
	for known, value := range signal.SignalMap {
		if value == number && (name == "" || known < name) {
			name = known
		}
	}
	if name == "" {
		return
	}
	// A container that is not there yet, or any more, has nothing to receive.
	if _, err := daemon.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: name}); err != nil && !isDaemonError(err) {
		fmt.Fprintf(a.err, "linkspan: sending signal %s to the container: %v\n", name, err)
	}
}
