package runtime

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
)

func TestLinkVariables(t *testing.T) {
	exposed := func(ports ...string) apinetwork.PortSet {
		set := apinetwork.PortSet{}
		for _, p := range ports {
			set[apinetwork.MustParsePort(p)] = struct{}{}
		}
		return set
	}
	for _, test := range []struct {
		name, alias string
		config      container.Config
		want        string
	}{
		{"no ports", "db", container.Config{Env: []string{"PATH=/bin", "HOME=/", "A=1=2", "EMPTY=", "UNSET"}}, "DB_NAME=/web/db DB_ENV_A=1=2 DB_ENV_EMPTY="},
		{"a dash in the alias", "my-db", container.Config{ExposedPorts: exposed("80/tcp")}, `MY_DB_PORT=tcp://10.77.0.2:80
			MY_DB_PORT_80_TCP=tcp://10.77.0.2:80 MY_DB_PORT_80_TCP_ADDR=10.77.0.2 MY_DB_PORT_80_TCP_PORT=80 MY_DB_PORT_80_TCP_PROTO=tcp MY_DB_NAME=/web/my-db`},
		{"TCP first, ports in a row", "x", container.Config{ExposedPorts: exposed("53/udp", "54/udp", "90/tcp", "9/sctp")}, `X_PORT=tcp://10.77.0.2:90
			X_PORT_90_TCP=tcp://10.77.0.2:90 X_PORT_90_TCP_ADDR=10.77.0.2 X_PORT_90_TCP_PORT=90 X_PORT_90_TCP_PROTO=tcp
			X_PORT_9_SCTP=sctp://10.77.0.2:9 X_PORT_9_SCTP_ADDR=10.77.0.2 X_PORT_9_SCTP_PORT=9 X_PORT_9_SCTP_PROTO=sctp
			X_PORT_53_UDP=udp://10.77.0.2:53 X_PORT_53_UDP_ADDR=10.77.0.2 X_PORT_53_UDP_PORT=53 X_PORT_53_UDP_PROTO=udp
			X_PORT_54_UDP=udp://10.77.0.2:54 X_PORT_54_UDP_ADDR=10.77.0.2 X_PORT_54_UDP_PORT=54 X_PORT_54_UDP_PROTO=udp
			X_PORT_53_UDP_START=udp://10.77.0.2:53 X_PORT_53_UDP_PORT_START=53 X_PORT_53_UDP_END=udp://10.77.0.2:54 X_PORT_53_UDP_PORT_END=54 X_NAME=/web/x`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := linkVariables(Link{Name: "web/" + test.alias, Addr: netip.MustParseAddr("10.77.0.2")}, Container{Config: &test.config})
			if want := strings.Fields(test.want); !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}
