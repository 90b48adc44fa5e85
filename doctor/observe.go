package doctor

import (
	"slices"

	"github.com/linkspan/linkspan/kernel"
)

// ours is the table of nftables that this engine makes: what it drops it drops
// on purpose.
const ours = "linkspan"

// Observe looks at the host. It changes nothing.
func Observe(h *kernel.Host) (Observation, error) {
	var o Observation
	value := func(key string) string {
		text, err := h.ReadSysctl("", key)
		if err != nil {
			return "" // a kernel, or a module, that is not there
		}
		return text
	}
	o.Forward4 = value("net/ipv4/ip_forward") == "1"
	all := value("net/ipv6/conf/all/forwarding")
	o.IPv6, o.Forward6 = all != "", all == "1"
	for _, family := range []string{"iptables", "ip6tables"} {
		if value("net/bridge/bridge-nf-call-"+family) == "1" {
			o.BridgeFilter = append(o.BridgeFilter, "net.bridge.bridge-nf-call-"+family)
		}
	}
	policies, err := h.ForwardDropPolicies()
	if err != nil {
		return o, err
	}
	o.DropPolicies = slices.DeleteFunc(policies, func(p kernel.DropPolicy) bool { return p.Table == ours })
	if o.Uplinks, err = h.Uplinks(); err != nil {
		return o, err
	}
	everywhere := value("net/ipv4/conf/all/rp_filter")
	for _, link := range o.Uplinks {
		// The kernel takes the higher of the two; 2 is loose.
		if here := value("net/ipv4/conf/" + link + "/rp_filter"); max(here, everywhere) == "1" {
			o.Strict = append(o.Strict, link)
		}
	}
	if o.Missing, err = h.MissingFeatures(); err != nil {
		return o, err
	}
	o.Routes, err = h.RoutedPrefixes()
	return o, err
}
