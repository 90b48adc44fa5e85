package macvlan

import (
	"slices"
	"strconv"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

// Names of the options of docker network create -o that these drivers know.
// Others are ignored, as Docker does.
const (
	OptionParent     = "parent"
	OptionMode       = "macvlan_mode"
	OptionIPvlanMode = "ipvlan_mode"
	OptionIPvlanFlag = "ipvlan_flag"
	OptionHostAccess = "linkspan.host_access"
)

// AuxHost names the host's own address on a network with access for the host,
// among the addresses that docker network create --aux-address reserves.
const AuxHost = "host_access"

// options are a network's options as types.
type options struct {
	parent     parent
	mode       string
	mtu        int // bytes; 0: the parent's
	hostAccess bool
}

// parse turns what the user typed into types. It is the only place that reads
// the options of a macvlan.
func parse(n network.Network) (options, error) {
	o := options{mode: n.Options[OptionMode]}
	if o.mode == "" {
		o.mode = op.MacvlanBridge
	}
	if !slices.Contains([]string{op.MacvlanBridge, op.MacvlanPrivate, op.MacvlanVEPA, op.MacvlanPassthru}, o.mode) {
		return o, linkspan.Errorf(linkspan.ErrInvalid, "requested macvlan mode '%s' is not valid, 'bridge' mode is the macvlan driver default", o.mode)
	}
	var err error
	if o.mtu, err = mtu(n); err != nil {
		return o, err
	}
	if o.parent, err = parseParent(n, "dm-"); err != nil {
		return o, err
	}
	if text, given := n.Options[OptionHostAccess]; given {
		if o.hostAccess, err = strconv.ParseBool(text); err != nil {
			return o, linkspan.Errorf(linkspan.ErrInvalid, "failed to parse %s value: %s (want true or false)", OptionHostAccess, text)
		}
	}
	if o.hostAccess && (o.mode != op.MacvlanBridge || o.parent.own || n.Internal) {
		return o, linkspan.Errorf(linkspan.ErrInvalid, "%s=true needs %s=bridge and a %s, and does not go with --internal: otherwise the host's own link would reach no container", OptionHostAccess, OptionMode, OptionParent)
	}
	return o, nil
}

func mtu(n network.Network) (int, error) {
	text := n.Options[network.OptionMTU]
	if text == "" {
		return 0, nil
	}
	mtu, err := strconv.Atoi(text)
	if err != nil {
		return 0, linkspan.Errorf(linkspan.ErrInvalid, "failed to parse %s value: %s (%w)", network.OptionMTU, text, err)
	}
	if mtu < 0 || mtu > 65535 || mtu > 0 && mtu < 68 {
		return 0, linkspan.Errorf(linkspan.ErrInvalid, "invalid MTU number: %d", mtu)
	}
	return mtu, nil
}
