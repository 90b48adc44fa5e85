package doctor

import (
	"github.com/linkspan/linkspan/firewall/choice"
	"github.com/linkspan/linkspan/kernel"
)

// anyBridge stands for the bridge of a network that is not there yet.
const anyBridge = "br-any"

// Observe looks at the host, on behalf of networks on the given bridges with
// IPv4 and with IPv6; none: of any that there might be. It changes nothing.
func Observe(h *kernel.Host, four, six []string) (Observation, error) {
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
	if len(four)+len(six) == 0 {
		four, six = []string{anyBridge}, []string{anyBridge}
	}
	var err error
	if o.Obstacles, err = choice.Obstacles(h, four, six); err != nil {
		return o, err
	}
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
