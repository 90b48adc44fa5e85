package controller_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// publish adds -p flags, as the docker command sends them.
func publish(specs ...string) func(*controller.Container) {
	return func(c *controller.Container) {
		if c.HostConfig.PortBindings == nil {
			c.HostConfig.PortBindings = apinetwork.PortMap{}
		}
		for _, text := range specs {
			w, err := sandbox.ParseWish(text)
			if err != nil {
				panic(err)
			}
			for i := range w.Count {
				port, _ := apinetwork.PortFrom(w.Port+i, apinetwork.IPProtocol(w.Protocol))
				host := ""
				switch {
				case w.Count > 1 || w.First == w.Last && w.First != 0:
					host = strconv.Itoa(int(w.First + i))
				case w.First != 0:
					host = fmt.Sprintf("%d-%d", w.First, w.Last)
				}
				c.HostConfig.PortBindings[port] = append(c.HostConfig.PortBindings[port], apinetwork.PortBinding{HostIP: w.Host, HostPort: host})
			}
		}
	}
}

func wished(t testing.TB, text string) []sandbox.Wish {
	t.Helper()
	w, err := sandbox.ParseWish(text)
	must(t, err)
	return []sandbox.Wish{w}
}

func (d *daemon) published(id linkspan.ID) string {
	var words []string
	for _, p := range d.Published(id) {
		words = append(words, p.String())
	}
	return strings.Join(words, " ")
}

// What is asked for, and what becomes of it.
func TestPublish(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "sysctl -qw net.ipv4.ip_local_port_range='40000 40009' net.ipv6.conf.all.disable_ipv6=1")
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.network(t, "bound", subnet("10.78.0.0/24"), func(s *controller.NetworkSpec) {
		s.Options = map[string]string{"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}
	})
	for _, c := range []struct {
		name, network string
		ports         []string
		want          string
	}{
		{"plain", "lab", []string{"8080:80"}, "0.0.0.0:8080->80/tcp"},
		{"sameport", "lab", []string{"8080:80/udp", "127.0.0.1:8081:80"}, "127.0.0.1:8081->80/tcp 0.0.0.0:8080->80/udp"},
		{"range", "lab", []string{"9000-9010:9000-9010", "9000-9001:80-81/udp"}, "0.0.0.0:9000-9010->9000-9010/tcp 0.0.0.0:9000-9001->80-81/udp"},
		{"first", "lab", []string{"8100-8102:80"}, "0.0.0.0:8100->80/tcp"},
		{"second", "lab", []string{"8100-8102:80"}, "0.0.0.0:8101->80/tcp"},
		{"bound", "bound", []string{"8090:80", "0.0.0.0:8091:80"}, "0.0.0.0:8091->80/tcp 127.0.0.1:8090->80/tcp"},
	} {
		ctr := spec(c.name, c.network, publish(c.ports...))
		d.run(t, ctr)
		if got := d.published(ctr.ID); got != c.want {
			t.Errorf("%v: published %s, want %s", c.ports, got, c.want)
		}
	}
	for _, c := range []struct {
		ports []string
		says  string
	}{
		{[]string{"8080:80"}, "Bind for 0.0.0.0:8080 failed: port is already allocated"},
		{[]string{"[::1]:8080:80", "[::]:8080:81"}, "Bind for :::8080 failed: port is already allocated"},
		{[]string{"127.0.0.1:8080:80"}, "Bind for 127.0.0.1:8080 failed: port is already allocated"},
		{[]string{"7000-7005:7000-7005", "7005:80"}, "Bind for 0.0.0.0:7005 failed: port is already allocated"},
		{[]string{"8999-9000:80-81"}, "Bind for 0.0.0.0:9000 failed: port is already allocated"},
		{[]string{"192.0.2.77:80:80"}, "no interface of this host has 192.0.2.77"},
		{[]string{"9000-9010:80"}, "all ports are allocated: none of 9000-9010 is free"},
	} {
		ctr := spec("refused", "lab", publish(c.ports...))
		must(t, d.Reserve(ctr))
		_, err := d.Attach(t.Context(), ctr.ID)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "driver failed programming external connectivity on endpoint refused (") {
			t.Errorf("%v: %v, want %q", c.ports, err, c.says)
		}
		must(t, d.Forget(ctr.ID))
	}
	// Ten ephemeral ports and not one more; what is freed is found again.
	var all []linkspan.ID
	seen := make(map[string]bool)
	for i := range 10 {
		ctr := spec(fmt.Sprint("e", i), "lab", publish("80"))
		d.run(t, ctr)
		all = append(all, ctr.ID)
		seen[d.published(ctr.ID)] = true
	}
	if len(seen) != 10 {
		t.Errorf("ten containers have the ports %v", seen)
	}
	late := spec("late", "lab", publish("80"))
	must(t, d.Reserve(late))
	if _, err := d.Attach(t.Context(), late.ID); err == nil || !strings.Contains(err.Error(), "all ports are allocated") {
		t.Errorf("an eleventh ephemeral port of ten: %v", err)
	}
	freed := d.published(all[3])
	must(t, d.Detach(context.Background(), all[3]))
	must(t, d.shims.Hold(all[3], nil, nil, nil))
	d.run(t, late)
	if got := d.published(late.ID); got != freed {
		t.Errorf("the last free port was %s, given was %s", freed, got)
	}
	d.clear(t)
}

// A port that a process of the host holds is stepped over where there is a choice.
func TestPublishStepsOverHeldPorts(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	m.Start(t, `exec python3 -c '
import socket, time
s = socket.socket(); s.bind(("0.0.0.0", 8100)); s.listen()
time.sleep(1000)'`)
	nstest.Until(patience, func() bool { return strings.Contains(m.Sh(t, "ss -Hltn"), ":8100") })
	web := spec("web", "lab", publish("8100-8101:80"))
	d.run(t, web)
	if got := d.published(web.ID); !strings.Contains(got, "0.0.0.0:8101->80/tcp") {
		t.Errorf("published %s", got)
	}
	other := spec("other", "lab", publish("8100:80"))
	must(t, d.Reserve(other))
	if _, err := d.Attach(t.Context(), other.ID); err == nil || !strings.Contains(err.Error(), "(python3) holds it") {
		t.Errorf("the refusal does not name the process: %v", err)
	}
	d.clear(t)
}

// Ports of a running container come and go, and the others keep theirs.
func TestPublishLive(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
	roots := newRoots(t)
	d := start(t, m, roots)
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.network(t, "side", subnet("10.78.0.0/24"))
	web := spec("web", "lab", publish("5000-5010:5000-5010", "80"))
	d.run(t, web)
	ephemeral := d.published(web.ID)[:strings.Index(d.published(web.ID), " ")]
	if strings.Contains(ephemeral, "5000") {
		ephemeral = strings.Fields(d.published(web.ID))[1]
	}
	check := func(want ...string) {
		t.Helper()
		got := d.published(web.ID)
		for _, one := range append(want, ephemeral) {
			if !strings.Contains(got+" ", one+" ") {
				t.Errorf("published %s, want %s in it", got, one)
			}
		}
		if len(strings.Fields(got)) != len(want)+1 {
			t.Errorf("published %s, want %d more than the ephemeral one", got, len(want))
		}
	}
	_, err := d.Publish(t.Context(), web.ID, wished(t, "127.0.0.1:8443:443"))
	must(t, err)
	check("0.0.0.0:5000-5010->5000-5010/tcp", "127.0.0.1:8443->443/tcp")
	_, err = d.Unpublish(t.Context(), web.ID, wished(t, "5005"))
	must(t, err)
	check("0.0.0.0:5000-5004->5000-5004/tcp", "0.0.0.0:5006-5010->5006-5010/tcp", "127.0.0.1:8443->443/tcp")
	_, err = d.Unpublish(t.Context(), web.ID, wished(t, "5005"))
	if !errors.Is(err, linkspan.ErrNotFound) || !strings.Contains(err.Error(), "port 5005/tcp of container web is not published") {
		t.Errorf("taking it back twice: %v", err)
	}
	if _, err = d.Publish(t.Context(), web.ID, wished(t, "8443:1")); err == nil || !strings.Contains(err.Error(), "127.0.0.1:8443") && !strings.Contains(err.Error(), "0.0.0.0:8443") {
		t.Errorf("publishing what overlaps: %v", err)
	}
	check("0.0.0.0:5000-5004->5000-5004/tcp", "0.0.0.0:5006-5010->5006-5010/tcp", "127.0.0.1:8443->443/tcp")
	// Ports follow the gateway, and keep their numbers.
	must(t, d.Connect(t.Context(), "side", web.ID, &apinetwork.EndpointSettings{GwPriority: 1}))
	check("0.0.0.0:5000-5004->5000-5004/tcp", "0.0.0.0:5006-5010->5006-5010/tcp", "127.0.0.1:8443->443/tcp")
	if rules := m.Sh(t, "nft list map inet linkspan published4"); !strings.Contains(rules, "10.78.0.2") || strings.Contains(rules, "10.77.0.2") {
		t.Errorf("the rules did not follow the gateway:\n%s", rules)
	}
	must(t, d.Disconnect(t.Context(), "side", web.ID, false))
	// A daemon that comes back changes nothing.
	before := settled(t, m)
	d.stop(t)
	d = start(t, m, roots)
	if d.traced.Load() != 0 {
		t.Errorf("a restart did %d kernel operations", d.traced.Load())
	}
	if diff := nstest.Diff(before, settled(t, m)); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
	check("0.0.0.0:5000-5004->5000-5004/tcp", "0.0.0.0:5006-5010->5006-5010/tcp", "127.0.0.1:8443->443/tcp")
	d.clear(t)
}

// TestPublishSweep fails, and then stops dead, before each step of publishing a
// port of a running container and of taking one back: the kernel and the row
// agree in the end, and a further try works.
func TestPublishSweep(t *testing.T) {
	for _, crash := range []bool{false, true} {
		for _, verb := range []string{"publish", "unpublish"} {
			t.Run(fmt.Sprintf("%s crash=%v", verb, crash), func(t *testing.T) {
				m := nstest.New(t)
				roots := newRoots(t)
				countdown := -1
				pull := func(o *controller.Options) {
					o.Before = func(int, op.Step) error {
						countdown--
						if countdown != -1 {
							return nil
						}
						if crash {
							runtime.Goexit()
						}
						return errPulled
					}
				}
				d := start(t, m, roots, pull)
				d.network(t, "lab", dualStack)
				web := spec("web", "lab", publish("8000-8010:8000-8010"))
				web.ID = testID
				d.run(t, web)
				without := settled(t, m)
				with := ""
				for _, change := range []func(context.Context, linkspan.ID, []sandbox.Wish) ([]sandbox.Port, error){d.Publish, d.Unpublish} {
					_, err := change(t.Context(), testID, wished(t, "9000:90/udp"))
					must(t, err)
					if with == "" {
						with = settled(t, m)
					}
				}
				if with == without {
					t.Fatal("publishing leaves no trace in the kernel")
				}
				for step := 0; ; step++ {
					if verb == "unpublish" {
						_, err := d.Publish(t.Context(), testID, wished(t, "9000:90/udp"))
						must(t, err)
					}
					act := d.Publish
					if verb == "unpublish" {
						act = d.Unpublish
					}
					var err error
					ended, done := false, make(chan struct{})
					countdown = step
					go func() {
						defer close(done)
						_, err = act(context.Background(), testID, wished(t, "9000:90/udp"))
						ended = true
					}()
					<-done
					countdown = -1
					if !ended {
						d.stop(t)
						d = start(t, m, roots, pull)
						must(t, d.Resume(testID, d.shims.handed(testID)))
					} else if err == nil {
						break
					} else if !errors.Is(err, errPulled) {
						t.Fatal(err)
					}
					want := without
					if strings.Contains(d.published(testID), "9000->90/udp") {
						want = with
					}
					if diff := nstest.Diff(want, settled(t, m)); diff != "" {
						t.Fatalf("step %d, published %s:\n%s", step, d.published(testID), diff)
					}
					if _, err = d.Unpublish(t.Context(), testID, wished(t, "9000:90/udp")); err != nil && !errors.Is(err, linkspan.ErrNotFound) {
						t.Fatal(err)
					}
				}
				d.clear(t)
			})
		}
	}
}
