package overlay

import (
	"strconv"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
)

// Names of the options of docker network create -o that this driver knows.
// Others are ignored, as Docker does.
const (
	OptionPort      = "linkspan.vxlan_port"
	OptionNumbers   = "com.docker.network.driver.overlay.vxlanid_list"
	OptionEncrypted = "encrypted"
)

const (
	defaultPort = 4789 // IANA's, for VXLAN
	mostNumber  = 1<<24 - 1
)

// options are a network's options as types.
type options struct {
	port int
	mtu  int    // bytes, of the containers' packets; 0: as large as the underlay allows
	vni  uint32 // 0: any
}

// parse turns what the user typed into types. It is the only place that reads
// the options.
func parse(n network.Network) (options, error) {
	o := options{port: defaultPort}
	if text, given := n.Options[OptionEncrypted]; given {
		if on, err := strconv.ParseBool(text); err != nil || on {
			return o, linkspan.Errorf(linkspan.ErrUnsupported, "option encrypted is refused: this version has no encryption of traffic between hosts (it would need IPsec or WireGuard in the kernel), and a network that was asked for with it must not be one without; leave the option out, and keep the underlay private")
		}
	}
	var err error
	if text := n.Options[OptionPort]; text != "" {
		if o.port, err = strconv.Atoi(text); err != nil || o.port < 1024 || o.port > 65535 {
			return o, linkspan.Errorf(linkspan.ErrInvalid, "VXLAN UDP port number is not in valid range (1024-65535): %s", text)
		}
	}
	if text := n.Options[network.OptionMTU]; text != "" {
		least, who := 68, "IPv4 needs at least 68 (RFC 791)"
		if n.IPv6 {
			least, who = 1280, "IPv6 needs at least 1280 (RFC 8200)"
		}
		o.mtu, err = strconv.Atoi(text)
		switch {
		case err != nil || o.mtu < 0 || o.mtu > 65535:
			return o, linkspan.Errorf(linkspan.ErrInvalid, "invalid MTU value: %s", text)
		case o.mtu != 0 && o.mtu < least:
			return o, linkspan.Errorf(linkspan.ErrInvalid, "invalid MTU value: %s: %s", text, who)
		}
	}
	o.vni, err = number(n.Options[OptionNumbers])
	return o, err
}

// number reads a list of numbers and returns the first, which is the one that is
// used: a network has one number here, however many subnets.
func number(list string) (uint32, error) {
	var first uint32
	if list == "" {
		return 0, nil
	}
	for text := range strings.SplitSeq(list, ",") {
		vni, err := strconv.ParseUint(text, 10, 32)
		if err != nil || vni == 0 || vni > mostNumber {
			return 0, linkspan.Errorf(linkspan.ErrInvalid, "invalid vxlan id value %q passed", text)
		}
		if first == 0 {
			first = uint32(vni)
		}
	}
	return first, nil
}
