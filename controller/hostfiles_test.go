package controller_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
)

// patience is how long what happens behind the back may take on a busy machine.
const patience = 20 * time.Second

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

// The first lines of resolv.conf promise that an edited file is left alone. In
// hosts, our lines come and go among the user's.
func TestEditedFiles(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.network(t, "side", subnet("10.78.0.0/24"))
	d.network(t, "fine", subnet("10.79.0.0/24"))
	web := spec("web", "lab")
	a := d.run(t, web)
	unedited := read(t, a.Hosts)
	must(t, d.Connect(t.Context(), "fine", web.ID, nil))
	if got, want := read(t, a.Hosts), unedited+"10.79.0.2\tweb\n"; got != want {
		t.Errorf("hosts in which nobody has edited anything, after connecting a network that comes first by priority:\n%s\nwant:\n%s", got, want)
	}
	must(t, d.Disconnect(t.Context(), "fine", web.ID, false))
	must(t, os.WriteFile(a.Hosts, []byte("192.0.2.1\tmine\n"+read(t, a.Hosts)+"192.0.2.2\ttoo"), 0o644))
	must(t, os.WriteFile(a.ResolvConf, []byte("nameserver 192.0.2.53\n"), 0o644))
	edited := read(t, a.Hosts)
	for range 2 {
		must(t, d.Connect(t.Context(), "side", web.ID, nil))
		if got, want := read(t, a.Hosts), strings.TrimSuffix(edited, "\n")+"\n10.78.0.2\tweb\n"; got != want {
			t.Errorf("hosts after connecting:\n%s\nwant:\n%s", got, want)
		}
		must(t, d.Disconnect(t.Context(), "side", web.ID, false))
		edited = strings.TrimSuffix(edited, "\n") + "\n"
		if got := read(t, a.Hosts); got != edited {
			t.Errorf("hosts after disconnecting:\n%s\nwant:\n%s", got, edited)
		}
	}
	if got := read(t, a.ResolvConf); got != "nameserver 192.0.2.53\n" {
		t.Errorf("an edited resolv.conf was overwritten: %q", got)
	}
	d.clear(t)
}

// A laptop that changes networks takes its containers along.
func TestHostsNameServersAreFollowed(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	path := filepath.Join(r.data, "resolv.conf")
	must(t, os.MkdirAll(r.data, 0o700))
	must(t, os.WriteFile(path, []byte("nameserver 192.0.2.1\n"), 0o644))
	d := start(t, m, r)
	for _, server := range []struct{ addr, answer string }{{"192.0.2.1", "198.51.100.1"}, {"192.0.2.2", "198.51.100.2"}} {
		m.Sh(t, "ip addr add "+server.addr+"/32 dev lo")
		serve(t, m, server.addr, server.answer)
	}
	d.network(t, "lab", subnet("10.77.0.0/24"))
	a := d.run(t, spec("probe", "lab"))
	plain := d.run(t, spec("plain", "bridge"))
	edited := d.run(t, spec("edited", "bridge"))
	must(t, os.WriteFile(edited.ResolvConf, []byte("nameserver 192.0.2.99\n"), 0o644))
	ask := func() string {
		out, _ := m.TrySh("nsenter --net=" + a.Netns + " dig +short +time=2 +tries=1 @127.0.0.11 www.example.test")
		return strings.TrimSpace(out)
	}
	if !nstest.Until(patience, func() bool { return ask() == "198.51.100.1" }) {
		t.Fatalf("the first server's answer: %q", ask())
	}
	must(t, os.WriteFile(path+".new", []byte("nameserver 192.0.2.2\nsearch home.test\n"), 0o644))
	must(t, os.Rename(path+".new", path))
	if !nstest.Until(patience, func() bool { return ask() == "198.51.100.2" }) {
		t.Errorf("after the host's servers changed: %q", ask())
	}
	for _, file := range []struct{ path, want string }{
		{a.ResolvConf, "search home.test\n"}, {a.ResolvConf, "# ExtServers: [host(192.0.2.2)]\n"}, {plain.ResolvConf, "nameserver 192.0.2.2\n"},
	} {
		if !nstest.Until(patience, func() bool { return strings.Contains(read(t, file.path), file.want) }) {
			t.Errorf("%s lacks %q:\n%s", file.path, file.want, read(t, file.path))
		}
	}
	if got := read(t, edited.ResolvConf); got != "nameserver 192.0.2.99\n" {
		t.Errorf("an edited resolv.conf was overwritten: %q", got)
	}
	d.clear(t)
}

// A stack of its own does not reach the stub of systemd-resolved: such a
// container gets what is behind it, and one on the host's stack the stub.
func TestResolvConfBehindStub(t *testing.T) {
	const behind = "/run/systemd/resolve/resolv.conf"
	m := nstest.New(t)
	stub := filepath.Join(t.TempDir(), "stub.conf")
	must(t, os.WriteFile(stub, []byte("nameserver 127.0.0.53\n"), 0o644))
	must(t, os.MkdirAll(filepath.Dir(behind), 0o755))
	must(t, os.WriteFile(behind, []byte("nameserver 192.0.2.53\n"), 0o644))
	t.Cleanup(func() { must(t, os.Remove(behind)) })
	if target, err := os.Readlink("/etc/resolv.conf"); err == nil { // leads to what the machine has in its own /run
		if !filepath.IsAbs(target) {
			target = filepath.Join("/etc", target)
		}
		must(t, os.MkdirAll(filepath.Dir(target), 0o755))
		file, err := os.OpenFile(target, os.O_CREATE, 0o644)
		must(t, err)
		must(t, file.Close())
	}
	must(t, unix.Mount(stub, "/etc/resolv.conf", "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount("/etc/resolv.conf", 0)) })
	d := start(t, m, newRoots(t), func(o *controller.Options) { o.Defaults.ResolvConf = "" })
	d.network(t, "lab", subnet("10.77.0.0/24"))
	for network, want := range map[string]string{
		"bridge": "nameserver 192.0.2.53\n\n# Based on host file: '" + behind + "' (legacy)\n",
		"host":   "nameserver 127.0.0.53\n\n# Based on host file: '/etc/resolv.conf'\n",
		"lab":    "\n# Based on host file: '" + behind + "' (internal resolver)\n# ExtServers: [host(192.0.2.53)]\n",
	} {
		if got := read(t, d.run(t, spec("on-"+network, network)).ResolvConf); !strings.Contains(got, want) {
			t.Errorf("on %s:\n%s\nwant:\n%s", network, got, want)
		}
	}
	d.clear(t)
}

// serve answers questions for www.example.test on an address of the machine, by
// UDP and TCP, until the test ends.
func serve(t *testing.T, m *nstest.Machine, listen, answer string) {
	t.Helper()
	handler := mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
		reply := new(mdns.Msg).SetReply(q)
		if q.Question[0].Name != "www.example.test." {
			reply.Rcode = mdns.RcodeNameError
		} else if q.Question[0].Qtype == mdns.TypeA {
			reply.Answer = []mdns.RR{&mdns.A{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 1}, A: net.ParseIP(answer)}}
		}
		w.WriteMsg(reply) //nolint:errcheck // who asked asks again
	})
	var server, stream mdns.Server
	must(t, m.Host().Inside("", func() (err error) {
		if server.PacketConn, err = net.ListenPacket("udp", net.JoinHostPort(listen, "53")); err == nil {
			stream.Listener, err = net.Listen("tcp", net.JoinHostPort(listen, "53"))
		}
		return err
	}))
	for _, s := range []*mdns.Server{&server, &stream} {
		s.Handler = handler
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go s.ActivateAndServe() //nolint:errcheck // ends with Shutdown
		<-up
		t.Cleanup(func() { s.Shutdown() }) //nolint:errcheck // it answers nobody any more
	}
}

// A question asked while no daemon runs is answered by the next one.
func TestQuestionsWaitForTheNextDaemon(t *testing.T) {
	t.Run("of a container that starts", func(t *testing.T) { questionsWait(t, false) })
	t.Run("of one that joins its first user's network later", func(t *testing.T) { questionsWait(t, true) })
}

func questionsWait(t *testing.T, late bool) {
	m := nstest.New(t)
	r := newRoots(t)
	first := start(t, m, r)
	first.network(t, "lab", subnet("10.77.0.0/24"))
	probe := spec("probe", "lab")
	if late {
		probe = spec("probe", "bridge")
	}
	must(t, first.Reserve(probe))
	a, err := first.Attach(t.Context(), probe.ID)
	must(t, err)
	kept := a.Keep
	if late {
		must(t, first.Connect(t.Context(), "lab", probe.ID, nil))
		kept = r.shims.handed(probe.ID)
	} else {
		defer func() {
			for _, file := range kept {
				file.Close()
			}
		}()
	}
	first.stop(t)
	type answer struct{ how, text string }
	answers := make(chan answer)
	for _, how := range []string{"+notcp", "+tcp"} {
		go func() {
			text, _ := m.TrySh("nsenter --net=" + a.Netns + " dig +short +time=60 +tries=1 " + how + " @127.0.0.11 probe")
			answers <- answer{how, strings.TrimSpace(text)}
		}()
	}
	// Both questions are in the sockets before anybody serves again.
	queued := func() bool {
		var udp, tcp bool
		for line := range strings.Lines(m.Sh(t, "nsenter --net="+a.Netns+" ss -Hntua sport = 61053")) {
			field := strings.Fields(line) // kind, state, bytes received, …
			udp = udp || field[0] == "udp" && field[2] != "0"
			tcp = tcp || field[0] == "tcp" && field[1] == "ESTAB" && field[2] != "0"
		}
		return udp && tcp
	}
	if !nstest.Until(patience, queued) {
		t.Fatal("the questions did not reach the sockets")
	}
	second := start(t, m, r)
	must(t, second.Resume(probe.ID, kept))
	for range 2 {
		if got := <-answers; got.text != "10.77.0.2" {
			t.Errorf("dig %s, asked between two daemons: %q", got.how, got.text)
		}
	}
	second.clear(t)
}
