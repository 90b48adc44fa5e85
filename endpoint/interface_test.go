package endpoint

import (
	"net/netip"
	"strings"
	"testing"
)

func TestFromMAC(t *testing.T) {
	if got := fromMAC("02:42:0a:47:00:09").String(); got != "fe80::42:aff:fe47:9" {
		t.Errorf("got %s", got)
	}
}

func TestConfigure(t *testing.T) {
	e := Endpoint{Interface: "eth0", MAC: "02:42:0a:47:00:09", IPv4: netip.MustParsePrefix("10.77.0.2/24")}
	if plan := e.Configure("ns").String(); !strings.Contains(plan, "disable_ipv6=1") || strings.Contains(plan, "fe80") {
		t.Errorf("without IPv6:\n%s", plan)
	}
	e.Config.LinkLocal = []netip.Addr{netip.MustParseAddr("169.254.7.7"), netip.MustParseAddr("fe80::7")}
	plan := e.Configure("ns").String()
	for _, want := range []string{"accept_ra=0", "addr_gen_mode=1", "addr add fe80::42:aff:fe47:9/64 nodad", "addr add 169.254.7.7/16", "addr add fe80::7/64 nodad"} {
		if !strings.Contains(plan, want) {
			t.Errorf("with a link-local IPv6 address %q is missing:\n%s", want, plan)
		}
	}
	if !strings.HasSuffix(plan, "link set eth0 up\n") {
		t.Errorf("the interface is not up last:\n%s", plan)
	}
}
