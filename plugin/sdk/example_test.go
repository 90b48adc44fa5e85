package sdk_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"

	"github.com/linkspan/linkspan/plugin/sdk"
	"github.com/linkspan/linkspan/plugin/wire"
)

// A whole driver: every network is a bridge, every endpoint a veth pair. It keeps
// nothing, since all names follow from IDs.
func Example() {
	ip := func(format string, args ...any) error {
		out, err := exec.Command("sh", "-ec", fmt.Sprintf(format, args...)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	bridge := func(id string) string { return "lab" + id[:10] }
	driver := sdk.Network{
		CreateNetwork: func(_ context.Context, q wire.CreateNetworkRequest) error {
			gateway := "0.0.0.0/32"
			for _, pool := range q.IPv4Data {
				gateway = pool.Gateway
			}
			return ip("ip link add %[1]s type bridge; ip addr add %[2]s dev %[1]s; ip link set %[1]s up", bridge(q.NetworkID), gateway)
		},
		DeleteNetwork: func(_ context.Context, q wire.NetworkRequest) error {
			return ip("test ! -e /sys/class/net/%[1]s || ip link del %[1]s", bridge(q.NetworkID))
		},
		Join: func(_ context.Context, q wire.JoinRequest) (wire.JoinResponse, error) {
			near, far := "n"+q.EndpointID[:10], "f"+q.EndpointID[:10]
			err := ip("ip link add %[1]s type veth peer name %[2]s; ip link set %[1]s master %[3]s up", near, far, bridge(q.NetworkID))
			return wire.JoinResponse{InterfaceName: &wire.InterfaceName{SrcName: far, DstPrefix: "eth"}}, err
		},
		DeleteEndpoint: func(_ context.Context, q wire.EndpointRequest) error {
			return ip("test ! -e /sys/class/net/%[1]s || ip link del %[1]s", "n"+q.EndpointID[:10])
		},
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := (sdk.Plugin{Network: &driver}).Serve(ctx, "/run/docker/plugins/lab.sock"); err != nil {
		log.Fatal(err)
	}
}
