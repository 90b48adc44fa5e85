package capture

import (
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// File writes pcapng with an interface for each target, named as its title, which
// Wireshark shows beside each frame (draft-ietf-opsawg-pcapng). Every frame is
// flushed, so that a program at the other end of a pipe sees it at once, and
// that a file is whole whenever the writing ends.
type File struct{ writer *pcapgo.NgWriter }

// NewFile begins a file of what a session with the options sees of the targets.
func NewFile(w io.Writer, targets []Target, options Options) (*File, error) {
	if len(targets) == 0 {
		return nil, fmt.Errorf("writing a capture: there is no link to listen to")
	}
	about := pcapgo.DefaultNgWriterOptions
	about.SectionInfo.Application = "linkspan"
	writer, err := pcapgo.NewNgWriterInterface(w, face(targets[0], options), about)
	if err != nil {
		return nil, fmt.Errorf("writing a capture: %w", err)
	}
	for _, target := range targets[1:] {
		if _, err = writer.AddInterface(face(target, options)); err != nil {
			return nil, fmt.Errorf("writing a capture: %w", err)
		}
	}
	if err = writer.Flush(); err != nil {
		return nil, fmt.Errorf("writing a capture: %w", err)
	}
	return &File{writer}, nil
}

func face(target Target, options Options) pcapgo.NgInterface {
	return pcapgo.NgInterface{
		Name: target.Title, LinkType: layers.LinkTypeEthernet, OS: "Linux", TimestampResolution: 9, SnapLength: uint32(options.SnapLength),
	}
}

// Write is a Sink.
func (f *File) Write(frame Frame) error {
	frame.Info.InterfaceIndex = frame.Target
	if err := f.writer.WritePacket(frame.Info, frame.Data); err != nil {
		return fmt.Errorf("writing a capture: %w", err)
	}
	if err := f.writer.Flush(); err != nil {
		return fmt.Errorf("writing a capture: %w", err)
	}
	return nil
}

// Finish adds what was seen and dropped on each interface.
func (f *File) Finish(counts []Count) error {
	for i, count := range counts {
		err := f.writer.WriteInterfaceStats(i, pcapgo.NgInterfaceStatistics{
			LastUpdate: time.Now(), PacketsReceived: count.Seen + count.Dropped, PacketsDropped: count.Dropped,
		})
		if err != nil {
			return fmt.Errorf("writing a capture: %w", err)
		}
	}
	if err := f.writer.Flush(); err != nil {
		return fmt.Errorf("writing a capture: %w", err)
	}
	return nil
}
