package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// encodeWord returns the first and the last value that a word of nft stands
// for, as the kernel keeps them.
func encodeWord(kind, word string) (first, last []byte, err error) {
	switch kind {
	case "ifname":
		if word == "" || len(word) >= unix.IFNAMSIZ {
			return nil, nil, fmt.Errorf("%q is no link name", word)
		}
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, word)
		return name, name, nil
	case "ipv4_addr":
		return encodeAddr(word, 4)
	case "ipv6_addr":
		return encodeAddr(word, 16)
	case "inet_service":
		return encodePorts(word)
	case "inet_proto":
		return oneOf(word, map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP})
	case "nf_proto":
		return oneOf(word, map[string]byte{"ipv4": unix.NFPROTO_IPV4, "ipv6": unix.NFPROTO_IPV6})
	}
	return nil, nil, fmt.Errorf("type %s is unknown", kind)
}

func oneOf(word string, numbers map[string]byte) (first, last []byte, err error) {
	number, known := numbers[word]
	if !known {
		return nil, nil, fmt.Errorf("%q is unknown", word)
	}
	return []byte{number}, []byte{number}, nil
}

// encodeAddr takes an address or a prefix.
func encodeAddr(word string, length int) (first, last []byte, err error) {
	prefix, err := netip.ParsePrefix(word)
	if err != nil {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(word); err != nil {
			return nil, nil, err
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	first = prefix.Masked().Addr().AsSlice()
	if len(first) != length {
		return nil, nil, fmt.Errorf("%s is of the wrong family", prefix)
	}
	last = prefix.Masked().Addr().AsSlice()
	for bit := prefix.Bits(); bit < length*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	return first, last, nil
}

// encodePorts takes a port or a range of them.
func encodePorts(word string) (first, last []byte, err error) {
	low, high, isRange := strings.Cut(word, "-")
	if !isRange {
		high = low
	}
	from, err := strconv.ParseUint(low, 10, 16)
	if err != nil {
		return nil, nil, err
	}
	to, err := strconv.ParseUint(high, 10, 16)
	if err != nil {
		return nil, nil, err
	}
	return binary.BigEndian.AppendUint16(nil, uint16(from)), binary.BigEndian.AppendUint16(nil, uint16(to)), nil
}

// padded fills up to whole registers of four bytes, as parts of a key are.
func padded(value []byte) []byte {
	return append(value[:len(value):len(value)], make([]byte, (4-len(value)%4)%4)...)
}
