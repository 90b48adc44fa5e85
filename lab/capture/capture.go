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
	"github.com/gopacket/gopacket/pcapgo"

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

// Session holds open sockets. Frames queue in the kernel from Open on.
type Session struct {
	targets []Target
	sockets []*pcapgo.EthernetHandle
}

// Open makes a packet socket for each target. It needs CAP_NET_RAW and, for
// targets in other namespaces, CAP_SYS_ADMIN.
func Open(host *kernel.Host, targets []Target) (*Session, error) {
	s := &Session{targets: targets}
	for _, target := range targets {
		err := host.Inside(target.Namespace, func() error {
			socket, err := pcapgo.NewEthernetHandle(target.Link)
			if err == nil {
				s.sockets = append(s.sockets, socket)
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listening to %s: %w", target.Title, err), s.Close())
		}
	}
	return s, nil
}

// Close closes the sockets; a Run that is under way returns.
func (s *Session) Close() error {
	var errs []error
	for _, socket := range s.sockets {
		if err := socket.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Run hands frames to the sink until ctx is done, limit frames were seen (0: no
// limit) or the sink fails, and closes the session. It returns the sink's error.
func (s *Session) Run(ctx context.Context, limit int, sink Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.Close() }) //nolint:errcheck // closing is only a wake-up here
	defer stop()

	frames := make(chan Frame, 256)
	var readers sync.WaitGroup
	for i, socket := range s.sockets {
		readers.Go(func() { read(ctx, i, socket, frames) })
	}
	go func() {
		readers.Wait()
		close(frames)
	}()
	seen := 0
	var failed error
	for frame := range frames {
		if failed != nil || limit > 0 && seen >= limit {
			continue // let the readers end
		}
		seen++
		if failed = sink(frame); failed != nil || seen == limit {
			cancel()
		}
	}
	return errors.Join(failed, s.Close())
}

func read(ctx context.Context, target int, socket *pcapgo.EthernetHandle, frames chan<- Frame) {
	for ctx.Err() == nil {
		data, info, err := socket.ReadPacketData()
		if err != nil {
			return // closed, or the link is gone: the others go on
		}
		if info.Timestamp.IsZero() {
			info.Timestamp = time.Now()
		}
		select {
		case frames <- Frame{target, info, data}:
		case <-ctx.Done():
			return
		}
	}
}
