package capture

import (
	"fmt"
	"io"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// PCAPNG returns a Sink that writes a capture file with an interface for each
// target, named as its title, which Wireshark shows beside each frame
// (draft-ietf-opsawg-pcapng). Every frame is flushed, so that a program at the
// other end of a pipe sees it at once.
func PCAPNG(w io.Writer, targets []Target) (Sink, error) {
	if len(targets) == 0 {
		return nil, fmt.Errorf("writing a capture: there is no link to listen to")
	}
	options := pcapgo.DefaultNgWriterOptions
	options.SectionInfo.Application = "linkspan"
	writer, err := pcapgo.NewNgWriterInterface(w, face(targets[0]), options)
	if err != nil {
		return nil, fmt.Errorf("writing a capture: %w", err)
	}
	for _, target := range targets[1:] {
		if _, err = writer.AddInterface(face(target)); err != nil {
			return nil, fmt.Errorf("writing a capture: %w", err)
		}
	}
	if err = writer.Flush(); err != nil {
		return nil, fmt.Errorf("writing a capture: %w", err)
	}
	return func(f Frame) error {
		f.Info.InterfaceIndex = f.Target
		if err := writer.WritePacket(f.Info, f.Data); err != nil {
			return fmt.Errorf("writing a capture: %w", err)
		}
		if err := writer.Flush(); err != nil {
			return fmt.Errorf("writing a capture: %w", err)
		}
		return nil
	}, nil
}

func face(target Target) pcapgo.NgInterface {
	return pcapgo.NgInterface{Name: target.Title, LinkType: layers.LinkTypeEthernet, OS: "Linux", TimestampResolution: 9}
}
