package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/gopacket/gopacket"
	"golang.org/x/sys/unix"
)

// socket is a packet socket on one link (packet(7)). It is made for no protocol,
// and for all only when it is bound: between the two a socket for all would
// take frames of every link of the namespace.
type socket struct {
	file   *os.File
	conn   syscall.RawConn
	buffer []byte
	oob    []byte
}

// roomy is the size of a socket's queue, in bytes: half a second of a busy
// container.
const roomy = 8 << 20

// openSocket listens to a link of the namespace that the calling thread is in. It
// keeps the first snap bytes of a frame.
func openSocket(link string, snap int) (*socket, error) {
	face, err := net.InterfaceByName(link)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "packet"), buffer: make([]byte, snap), oob: make([]byte, 256)}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, roomy),
		// A bridge's own link gets what is for the host only, unless it is asked for all.
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(face.Index), Type: unix.PACKET_MR_PROMISC}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: allProtocols(), Ifindex: face.Index}))
	if err == nil {
		s.conn, err = s.file.SyscallConn()
	}
	if err != nil {
		s.file.Close()
		return nil, fmt.Errorf("listening: %w", err)
	}
	return s, nil
}

// allProtocols is ETH_P_ALL in the order of the network.
func allProtocols() uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
}

// read waits for a frame. A link that is down may come up again: that is no end. Its
// error is that of file's deadline, or os.ErrClosed.
func (s *socket) read() ([]byte, gopacket.CaptureInfo, error) {
	for {
		var n, oobn int
		var got error
		err := s.conn.Read(func(fd uintptr) bool {
			n, oobn, _, _, got = unix.Recvmsg(int(fd), s.buffer, s.oob, unix.MSG_TRUNC)
			return !errors.Is(got, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return nil, gopacket.CaptureInfo{}, err
		case errors.Is(got, unix.EINTR), errors.Is(got, unix.ENETDOWN):
			continue
		case got != nil:
			return nil, gopacket.CaptureInfo{}, got
		}
		data, info := s.frame(n, s.oob[:oobn])
		return data, info, nil
	}
}

// gone tells whether the link was removed, or moved to another namespace: the
// kernel then unbinds the socket, and wakes nobody, since the link went down before.
func (s *socket) gone() bool {
	var addr unix.Sockaddr
	err := s.conn.Control(func(fd uintptr) { addr, _ = unix.Getsockname(int(fd)) })
	bound, ok := addr.(*unix.SockaddrLinklayer)
	return err == nil && ok && bound.Ifindex <= 0
}

// frame copies what was read. A VLAN's tag, which the kernel takes off, is put
// back where it was on the wire.
func (s *socket) frame(length int, oob []byte) ([]byte, gopacket.CaptureInfo) {
	info := gopacket.CaptureInfo{Length: length}
	data := append([]byte(nil), s.buffer[:min(length, len(s.buffer))]...)
	messages, _ := unix.ParseSocketControlMessage(oob) // without any the frame is still one
	for _, message := range messages {
		switch {
		case message.Header.Level == unix.SOL_SOCKET && message.Header.Type == unix.SO_TIMESTAMPNS && len(message.Data) >= int(unsafe.Sizeof(unix.Timespec{})):
			stamp := (*unix.Timespec)(unsafe.Pointer(&message.Data[0]))
			info.Timestamp = time.Unix(stamp.Unix())
		case message.Header.Level == unix.SOL_PACKET && message.Header.Type == unix.PACKET_AUXDATA && len(message.Data) >= int(unsafe.Sizeof(unix.TpacketAuxdata{})):
			aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&message.Data[0]))
			if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 && len(data) >= 12 {
				data = tagged(data, aux)
				info.Length += 4
			}
		}
	}
	data = data[:min(len(data), len(s.buffer))]
	if info.Timestamp.IsZero() {
		info.Timestamp = time.Now()
	}
	info.CaptureLength = len(data)
	return data, info
}

func tagged(data []byte, aux *unix.TpacketAuxdata) []byte {
	protocol := uint16(unix.ETH_P_8021Q)
	if aux.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		protocol = aux.Vlan_tpid
	}
	whole := append(make([]byte, 0, len(data)+4), data[:12]...)
	whole = binary.BigEndian.AppendUint16(whole, protocol)
	whole = binary.BigEndian.AppendUint16(whole, aux.Vlan_tci)
	return append(whole, data[12:]...)
}

// dropped returns how many frames the kernel dropped since the last call, because
// the queue was full.
func (s *socket) dropped() uint64 {
	var stats *unix.TpacketStats
	var err error
	if controlErr := s.conn.Control(func(fd uintptr) {
		stats, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); controlErr != nil || err != nil {
		return 0 // closed already
	}
	return uint64(stats.Drops)
}
