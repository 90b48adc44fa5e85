package controller_test

import (
	"net"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/iptables"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
)

// On a default bridge that keeps its containers apart, a link lets its owner ask
// what the target exposes, and nobody else anything; through restarts of both and
// of the daemon, until it is removed.
func TestLinksOfAnApartBridge(t *testing.T) {
	for name, rules := range map[string]firewall.Backend{"nftables": nftables.Backend{}, "iptables": iptables.Backend{}} {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			r := newRoots(t)
			apart := func(o *controller.Options) {
				o.Firewall, o.Defaults.Options = rules, bridge.DefaultOptions("linkspan0", 0, false)
				o.Defaults.IPv6 = true
			}
			d := start(t, m, r, apart)
			m.Sh(t, "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
			db := spec("db", "bridge", func(c *controller.Container) {
				c.Config.ExposedPorts = apinetwork.PortSet{apinetwork.MustParsePort("80/tcp"): {}}
			})
			web := spec("web", "bridge", wish(func(h *container.HostConfig) { h.Links = []string{"db"} }))
			there, other := d.run(t, db), d.run(t, spec("other", "bridge"))
			here := d.run(t, web)
			serve := func() {
				for _, port := range []string{"80", "81"} {
					accept(t, m, nsOf(there), "tcp4", "0.0.0.0:"+port)
					accept(t, m, nsOf(there), "tcp6", "[::]:"+port)
				}
			}
			serve()
			reaches := func(when string, a controller.Attachment, port string, want bool) {
				t.Helper()
				for _, addr := range d.addressesOf(db.ID) {
					limit := 200 * time.Millisecond
					if want {
						limit = 20 * time.Second
					}
					err := m.Host().Inside(nsOf(a), func() error {
						conn, err := net.DialTimeout("tcp", net.JoinHostPort(addr, port), limit)
						if err == nil {
							conn.Close()
						}
						return err
					})
					if (err == nil) != want {
						t.Errorf("%s: asking %s at %s: %v, want an answer: %t\n%s", when, addr, port, err, want, m.Sh(t, "ip -n "+nsOf(a)+" neigh"))
					}
				}
			}
			all := func(when string) {
				t.Helper()
				reaches(when+", by the link", here, "80", true)
				reaches(when+", a port that is not exposed", here, "81", false)
				reaches(when+", by somebody else", other, "80", false)
			}
			all("at first")

			restart := func(c controller.Container) controller.Attachment {
				must(t, d.Detach(t.Context(), c.ID))
				d.shims.drop(c.ID)
				a, err := d.Attach(t.Context(), c.ID)
				must(t, err)
				d.shims.launched(c.ID, a)
				return a
			}
			there = restart(db)
			serve()
			all("after a restart of the target")
			here = restart(web)
			all("after a restart of the owner")
			d.stop(t)
			d = start(t, m, r, apart)
			all("after a restart of the daemon")
			must(t, d.Unlink("web/db"))
			reaches("without the link", here, "80", false)
			d.clear(t)
		})
	}
}

// addressesOf are a live container's on the default bridge.
func (d *daemon) addressesOf(id linkspan.ID) []string {
	on := d.Settings(id).Networks["bridge"]
	return []string{on.IPAddress.String(), on.GlobalIPv6Address.String()}
}
