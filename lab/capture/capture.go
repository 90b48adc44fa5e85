// Package capture listens to links, in whichever namespace they are, and writes
// what passes as pcapng for Wireshark or as a line a frame for a reader.
//
// A packet socket (packet(7)) is bound to one link and gets a copy of every frame
// that the link sends or receives. It belongs to the namespace in which it was
// made and stays there: so one process listens to the wires of many containers,
// and nothing has to be installed in them. By hand:
//
//	ip netns exec NAME tcpdump -i eth0 -w eth0.pcap
//
// A frame from one container to another passes four links, the two ends of each
// cable, and is seen on each that is listened to.
package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gopacket/gopacket"

	"github.com/linkspan/linkspan/kernel"
)

// Target is a link to listen to.
type Target struct {
	Namespace string // name of its pin; "" for the machine's own
	Link      string
	Title     string // what a reader knows it by: web eth0
}

// Frame is what passed a target.
type Frame struct {
	Target int // index into the targets
	Info   gopacket.CaptureInfo
	Data   []byte
}

// Sink takes frames, one at a time and in the order of their arrival here.
type Sink func(Frame) error

// SnapLength is what is kept of a frame if nothing else is wanted, in bytes: more
// than any link hands over.
const SnapLength = 262144

// Options are what a session may be told.
type Options struct {
	SnapLength int          // bytes of each frame to keep; 0: SnapLength
	Gone       func(Target) // if not nil, is called when a target is no more
}

// Count is what became of a target's frames.
type Count struct {
	Seen    uint64 // handed to the sink
	Dropped uint64 // by the kernel, because nobody took them in time
}

// Session holds open sockets. Frames queue in the kernel from Open on.
type Session struct {
	targets []Target
	options Options
	sockets []*socket
	pins    []os.FileInfo // of the targets' namespaces; nil for the machine's own
	counts  []Count
}

// Open makes a packet socket for each target. It needs CAP_NET_RAW and, for
// targets in other namespaces, CAP_SYS_ADMIN.
func Open(host *kernel.Host, targets []Target, options Options) (*Session, error) {
	if options.SnapLength == 0 {
		options.SnapLength = SnapLength
	}
	s := &Session{targets: targets, options: options, counts: make([]Count, len(targets))}
	for _, target := range targets {
		err := host.Inside(target.Namespace, func() error {
			open, err := openSocket(target.Link, options.SnapLength)
			if err == nil {
				s.sockets = append(s.sockets, open)
			}
			return err
		})
		var pin os.FileInfo
		if err == nil && target.Namespace != "" {
			pin, err = os.Stat(kernel.Pin(target.Namespace))
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listening to %s: %w", target.Title, err), s.Close())
		}
		s.pins = append(s.pins, pin)
	}
	return s, nil
}

// Close closes the sockets; a Run that is under way returns.
func (s *Session) Close() error {
	var errs []error
	for i, open := range s.sockets {
		s.counts[i].Dropped += open.dropped()
		if err := open.file.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Counts tells what was seen and what was dropped, by target. Call it after Run.
func (s *Session) Counts() []Count { return s.counts }

// Run hands frames to the sink until ctx is done, limit frames were seen (0: no
// limit), the sink fails or every target is gone, and closes the session. It
// returns the sink's error.
func (s *Session) Run(ctx context.Context, limit int, sink Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	frames := make(chan Frame, 256)
	var readers, watcher sync.WaitGroup
	for i := range s.sockets {
		readers.Go(func() { s.read(ctx, i, frames) })
	}
	ended := make(chan struct{})
	watcher.Go(func() { s.watch(ctx, ended) })
	go func() {
		readers.Wait()
		close(ended)
		close(frames)
	}()
	seen := 0
	var failed error
	for frame := range frames {
		if failed != nil || limit > 0 && seen >= limit {
			continue // let the readers end
		}
		seen++
		s.counts[frame.Target].Seen++
		if failed = sink(frame); failed != nil || seen == limit {
			cancel()
		}
	}
	watcher.Wait()
	return errors.Join(failed, s.Close())
}

// look is how often links and namespaces are looked for.
const look = 500 * time.Millisecond

// watch makes the readers end when they should: at the end of ctx, when a link is
// gone, and when a namespace is unpinned. A socket keeps its namespace alive, and so
// the links in it: they would be silent for ever.
func (s *Session) watch(ctx context.Context, ended <-chan struct{}) {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		select {
		case <-ended:
			return
		case <-ctx.Done():
			s.wake()
			return
		case <-ticker.C:
		}
		for i, open := range s.sockets {
			if open.gone() || s.unpinned(i) {
				open.file.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // closed already
			}
		}
	}
}

func (s *Session) unpinned(i int) bool {
	if s.pins[i] == nil {
		return false
	}
	now, err := os.Stat(kernel.Pin(s.targets[i].Namespace))
	return err != nil || !os.SameFile(s.pins[i], now)
}

// wake ends every read.
func (s *Session) wake() {
	for _, open := range s.sockets {
		open.file.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // closed already
	}
}

func (s *Session) read(ctx context.Context, target int, frames chan<- Frame) {
	for ctx.Err() == nil {
		data, info, err := s.sockets[target].read()
		if err != nil {
			if ctx.Err() == nil && s.options.Gone != nil {
				s.options.Gone(s.targets[target])
			}
			return // the others go on
		}
		select {
		case frames <- Frame{target, info, data}:
		case <-ctx.Done():
			return
		}
	}
}
