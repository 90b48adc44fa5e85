package controller_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

func to[T any](value T) *T { return &value }

// stream is a TCP connection between two namespaces.
type stream struct {
	near net.Conn
	far  *bufio.Reader
}

func connectStream(t *testing.T, m *nstest.Machine, from, to, addr string) stream {
	t.Helper()
	var listener net.Listener
	must(t, m.Host().Inside(to, func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(addr, "8080"))
		return err
	}))
	t.Cleanup(func() { listener.Close() })
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			accepted <- conn
		}
	}()
	var s stream
	must(t, m.Host().Inside(from, func() (err error) {
		s.near, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
		return err
	}))
	far := <-accepted
	t.Cleanup(func() { s.near.Close(); far.Close() })
	s.far = bufio.NewReader(far)
	return s
}

// lives sends a line that fills some frames, and waits for it at the other end.
func (s stream) lives(t *testing.T, when string) {
	t.Helper()
	line := strings.Repeat(when+" ", 1000) + "\n"
	if _, err := s.near.Write([]byte(line)); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if got, err := s.far.ReadString('\n'); err != nil || got != line {
		t.Fatalf("%s: the stream broke: %v", when, err)
	}
}

// A network changes in every way that there is while a connection over it
// stays up, and everything that hangs on it follows.
func TestUpdateInPlace(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	d := start(t, m, r)
	id := d.network(t, "lab", pool("10.77.0.0/24", "", ""), func(s *controller.NetworkSpec) { s.Labels = map[string]string{"old": "1"} })
	br := "br-" + id.Short()
	a, b := spec("web", "lab"), spec("db", "lab")
	web, db := nsOf(d.run(t, a)), nsOf(d.run(t, b))
	s := connectStream(t, m, web, db, "10.77.0.3")
	s.lives(t, "before")

	const yes = true
	for _, step := range []struct {
		what   string
		change controller.NetworkChange
		show   string
		want   []string // in what show prints
		not    []string
	}{
		{
			what: "labels", change: controller.NetworkChange{Labels: map[string]*string{"old": nil, "new": to("2")}, Attachable: to(yes)},
			show: "true",
		},
		{
			what: "MTU", change: controller.NetworkChange{Options: map[string]*string{network.OptionMTU: to("1400")}},
			show: "ip -o link show " + br + "; ip -o link show master " + br + "; ip -n " + web + " -o link show eth0; ip -n " + db + " -o link show eth0",
			want: []string{"mtu 1400"}, not: []string{"mtu 1500"},
		},
		{
			what: "IPv6", change: controller.NetworkChange{IPv6: to(yes)},
			show: "ip -n " + web + " -o addr show eth0; ip -n " + web + " -6 route; nsenter --net=/run/netns/" + web + " ping -6 -c1 -W5 $(ip -n " + db + " -o -6 addr show eth0 scope global | awk '{sub(\"/.*\",\"\",$4); print $4}')",
			want: []string{"inet6 fd", "10.77.0.2/24", "default via fd", "1 received"},
		},
		{
			what: "a subnet", change: controller.NetworkChange{Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("10.78.0.0/30")}}},
			show: "ip -o addr show " + br, want: []string{"10.77.0.1/24", "10.78.0.1/30"},
		},
		{
			what: "internal", change: controller.NetworkChange{Internal: to(yes)},
			show: "ip -n " + web + " route; nft list set inet linkspan internal", want: []string{"10.77.0.0/24", br}, not: []string{"default"},
		},
		{
			what: "no longer internal", change: controller.NetworkChange{Internal: to(false)},
			show: "ip -n " + web + " route; nft list set inet linkspan internal", want: []string{"default via 10.77.0.1"}, not: []string{br},
		},
		{
			what: "the MTU of old", change: controller.NetworkChange{Options: map[string]*string{network.OptionMTU: nil}},
			show: "ip -o link show " + br + "; ip -o link show master " + br + "; ip -n " + web + " -o link show eth0", want: []string{"mtu 1500"}, not: []string{"mtu 1400"},
		},
	} {
		if _, err := d.ExplainUpdate("lab", step.change); err != nil {
			t.Errorf("%s: explaining: %v", step.what, err)
		}
		n, err := d.UpdateNetwork(t.Context(), "lab", step.change)
		if err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		s.lives(t, "after "+step.what)
		shown := m.Sh(t, step.show)
		for _, want := range step.want {
			if !strings.Contains(shown, want) {
				t.Errorf("%s: no %q in\n%s", step.what, want, shown)
			}
		}
		for _, not := range step.not {
			if strings.Contains(shown, not) {
				t.Errorf("%s: %q in\n%s", step.what, not, shown)
			}
		}
		if now, err := d.Network("lab"); err != nil || fmt.Sprint(now) != fmt.Sprint(n) {
			t.Errorf("%s: the network is %v, want %v", step.what, now, n)
		}
		d.checkPlans(t, m)
	}
	if n, _ := d.Network("lab"); n.Labels["new"] != "2" || n.Labels["old"] != "" || !n.Attachable || len(n.Pools) != 3 {
		t.Errorf("network: %+v", n)
	}

	// Another daemon finds all as it should be, and the new subnet serves when
	// the old one is full.
	before := m.Dump(t)
	d.stop(t)
	d = start(t, m, r)
	if d.traced.Load() != 0 {
		t.Errorf("a restart after updates made %d kernel operations", d.traced.Load())
	}
	if diff := nstest.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
	other := nsOf(d.run(t, spec("other", "lab", ip4("10.78.0.2"))))
	m.Sh(t, "nsenter --net=/run/netns/"+other+" ping -c1 -W5 10.77.0.2")
	s.lives(t, "at the end")
	d.clear(t)
}

// checkPlans compares the kernel with all stored plans.
func (d *daemon) checkPlans(t *testing.T, m *nstest.Machine) {
	t.Helper()
	x := op.Executor{Host: m.Host()}
	for _, n := range d.Networks() {
		plan, err := d.NetworkCommands(n.Name)
		must(t, err)
		if err := x.Check(t.Context(), plan); err != nil {
			t.Errorf("network %s: %v", n.Name, err)
		}
	}
	live, _ := d.Owners()
	for _, owner := range live {
		plan, err := d.ContainerCommands(owner)
		must(t, err)
		if err := x.Check(t.Context(), plan); err != nil {
			t.Errorf("container %s: %v", owner.Short(), err)
		}
	}
}

func TestUpdateRefuses(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t), wired)
	d.network(t, "lab", pool("10.77.0.0/24", "", ""))
	d.network(t, "side", pool("10.78.0.0/24", "", ""))
	d.network(t, "wire", onWire, pool("10.79.0.0/24", "", ""))
	d.network(t, "conf", func(s *controller.NetworkSpec) { s.ConfigOnly = true })
	d.run(t, spec("web", "lab"))
	before := m.Dump(t)
	mtu := controller.NetworkChange{Options: map[string]*string{network.OptionMTU: to("1400")}}
	for _, c := range []struct {
		ref    string
		change controller.NetworkChange
		kind   error
		words  string
	}{
		{"none such", mtu, linkspan.ErrNotFound, "not found"},
		{"bridge", mtu, linkspan.ErrForbidden, "pre-defined network"},
		{"conf", mtu, linkspan.ErrForbidden, "configuration network"},
		{"wire", mtu, linkspan.ErrNotImplemented, `driver "wire"`},
		{"lab", controller.NetworkChange{IPv4: to(false)}, linkspan.ErrForbidden, "cannot be switched off"},
		{"lab", controller.NetworkChange{Options: map[string]*string{bridge.OptionName: to("br-other")}}, linkspan.ErrForbidden, "cannot move to br-other"},
		{"lab", controller.NetworkChange{Options: map[string]*string{network.OptionMTU: to("7")}}, linkspan.ErrInvalid, "invalid MTU number"},
		{"lab", controller.NetworkChange{Options: map[string]*string{network.OptionRecords: to("nonsense")}}, linkspan.ErrInvalid, network.OptionRecords},
		{"lab", controller.NetworkChange{IPv6: to(true), Options: map[string]*string{network.OptionMTU: to("1000")}}, linkspan.ErrInvalid, "IPv6 needs at least 1280"},
		{"lab", controller.NetworkChange{Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("10.78.0.0/16")}}}, linkspan.ErrForbidden, "network side"},
		{"lab", controller.NetworkChange{Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("10.77.0.0/24")}}}, linkspan.ErrForbidden, "network lab"},
	} {
		_, err := d.UpdateNetwork(t.Context(), c.ref, c.change)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: error %v, want %v with %q", c.ref, err, c.kind, c.words)
		}
	}
	if _, err := d.UpdateNetwork(t.Context(), "wire", controller.NetworkChange{Labels: map[string]*string{"a": to("b")}}); err != nil {
		t.Errorf("labels of any network: %v", err)
	}
	if diff := nstest.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("refusals changed something:\n%s", diff)
	}
	must(t, d.RemoveNetwork(t.Context(), "conf"))
	d.clear(t)
}

// everything is a change that touches the bridge, its rules and both ends of
// each cable.
func everything() controller.NetworkChange {
	return controller.NetworkChange{
		IPv6: to(true), Internal: to(true),
		Options: map[string]*string{network.OptionMTU: to("1400"), bridge.OptionICC: to("false")},
		Pools:   []ipam.Pool{{Subnet: netip.MustParsePrefix("10.78.0.0/24")}},
	}
}

func (d *daemon) prepareUpdate(t *testing.T, m *nstest.Machine) string {
	t.Helper()
	d.network(t, "lab", pool("10.77.0.0/24", "", ""))
	web := spec("web", "lab")
	web.ID = testID
	d.run(t, web)
	d.run(t, spec("db", "lab"))
	return settled(t, m)
}

// Each step of an update fails in turn: the network is what it was.
func TestUpdateFails(t *testing.T) {
	m := nstest.New(t)
	countdown := -1
	d := start(t, m, newRoots(t), func(o *controller.Options) {
		o.Before = func(int, op.Step) error {
			countdown--
			if countdown == -1 {
				return errPulled
			}
			return nil
		}
	})
	d.network(t, "six", pool("fd77::/64", "", "")) // the host forwards IPv6 from here on
	before := d.prepareUpdate(t, m)
	step := 0
	for ; ; step++ {
		countdown = step
		n, err := d.UpdateNetwork(t.Context(), "lab", everything())
		countdown = -1
		if err == nil {
			break // what fails after the commit is for the next start
		}
		if !errors.Is(err, errPulled) {
			t.Fatalf("step %d: %v", step, err)
		}
		if now, _ := d.Network("lab"); now.IPv6 || len(now.Pools) != 1 {
			t.Fatalf("step %d: the network is %+v, and was to be %+v", step, now, n)
		}
		if diff := nstest.Diff(before, settled(t, m)); diff != "" {
			t.Fatalf("after failing step %d:\n%s", step, diff)
		}
	}
	if step < 15 {
		t.Errorf("only %d steps were swept", step)
	}
	d.clear(t)
}

// The daemon dies before each step of an update in turn: the next one finds the
// network whole, as it was or as it was to be.
func TestUpdateCrashes(t *testing.T) {
	m := nstest.New(t)
	roots := newRoots(t)
	countdown := -1
	pull := func(o *controller.Options) {
		o.Before = func(int, op.Step) error {
			countdown--
			if countdown == -1 {
				runtime.Goexit() // as kill -9 would: no error, no undo
			}
			return nil
		}
	}
	d := start(t, m, roots, pull)
	d.network(t, "six", pool("fd77::/64", "", ""))
	before := d.prepareUpdate(t, m)
	old, fresh := 0, 0
	for step := 0; ; step++ {
		countdown = step
		ended, done := false, make(chan struct{})
		go func() {
			defer close(done)
			_, err := d.UpdateNetwork(context.Background(), "lab", everything())
			ended = true
			if err != nil {
				t.Errorf("step %d: %v", step, err)
			}
		}()
		<-done
		countdown = -1
		if ended {
			break
		}
		d.stop(t)
		d = start(t, m, roots, pull)
		n, err := d.Network("lab")
		must(t, err)
		d.checkPlans(t, m)
		if !n.IPv6 {
			old++
			if diff := nstest.Diff(before, settled(t, m)); diff != "" {
				t.Fatalf("after stopping before step %d:\n%s", step, diff)
			}
			continue
		}
		fresh++
		web := ""
		for _, e := range d.Endpoints(n.ID) {
			if e.Owner == testID {
				web = "linkspan-" + e.Sandbox.Short()
			}
		}
		if routes := m.Sh(t, "ip -n "+web+" route; ip -n "+web+" -6 route"); !n.Internal || strings.Contains(routes, "default") {
			t.Errorf("after stopping before step %d the routes are\n%s", step, routes)
		}
		live, configured := d.Owners()
		for _, owner := range slices.Concat(live, configured) {
			must(t, d.Detach(t.Context(), owner))
			must(t, d.Forget(owner))
		}
		must(t, d.RemoveNetwork(t.Context(), "lab"))
		before = d.prepareUpdate(t, m)
	}
	if old < 15 || fresh > 5 {
		t.Errorf("%d crashes led back and %d forward", old, fresh)
	}
	d.clear(t)
}
