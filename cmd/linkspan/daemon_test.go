package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan/ipam"
	"github.com/spf13/pflag"
)

// daemonConfig reads a command line of daemon, with a file's content if any.
func daemonConfig(t *testing.T, content string, args ...string) (DaemonConfig, error) {
	t.Helper()
	if content != "" {
		name := filepath.Join(t.TempDir(), "daemon.json")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config-file", name)
	}
	var f daemonFlags
	flags := pflag.NewFlagSet("daemon", pflag.ContinueOnError)
	f.bind(flags)
	if err := flags.Parse(args); err != nil {
		return DaemonConfig{}, err
	}
	return f.config(flags)
}

func TestDaemonConfig(t *testing.T) {
	plain := func(change func(*DaemonConfig)) DaemonConfig {
		config := DaemonConfig{
			Hosts: []string{"unix:///run/linkspan/linkspan.sock"}, DataRoot: "/var/lib/linkspan", ExecRoot: "/run/linkspan",
			PidFile: "/run/linkspan/linkspan.pid", FirewallBackend: "auto",
			BridgeConfig: BridgeConfig{Bridge: "linkspan0", IP: netip.MustParseAddr("0.0.0.0"), ICC: true, Masquerade: true},
		}
		change(&config)
		return config
	}
	pools := []ipam.Base{{Prefix: netip.MustParsePrefix("10.10.0.0/16"), Size: 24}, {Prefix: netip.MustParsePrefix("fd00::/48"), Size: 64}}
	tests := []struct {
		name, file string
		args       []string
		want       DaemonConfig
	}{
		{"nothing said", "", nil, plain(func(*DaemonConfig) {})},
		{"empty file", " \n", nil, plain(func(*DaemonConfig) {})},
		{
			"roots of its own", "",
			[]string{"-H", "unix:///x/s", "-H", "unix:///x/t", "--data-root", "/x/d", "--exec-root", "/x/e"},
			plain(func(c *DaemonConfig) {
				c.Hosts, c.DataRoot, c.ExecRoot, c.PidFile = []string{"unix:///x/s", "unix:///x/t"}, "/x/d", "/x/e", "/x/e/linkspan.pid"
			}),
		},
		{
			"networks", "",
			[]string{
				"--bip", "172.30.0.1/24", "--dns", "10.0.0.53", "--mtu", "1400", "--icc=false", "--ipv6", "--ip", "127.0.0.1",
				"--default-address-pool", "base=10.10.0.0/16,size=24", "--default-address-pool", "base=fd00::/48,size=64",
			},
			plain(func(c *DaemonConfig) {
				c.BIP, c.DNS, c.MTU, c.ICC, c.IPv6 = netip.MustParsePrefix("172.30.0.1/24"), []netip.Addr{netip.MustParseAddr("10.0.0.53")}, 1400, false, true
				c.IP, c.DefaultAddressPools = netip.MustParseAddr("127.0.0.1"), pools
			}),
		},
		{
			"file", `{"hosts":["unix:///x/s"],"default-address-pools":[{"base":"10.10.0.0/16","size":24},{"base":"fd00::/48","size":64}],
				"icc":false,"mtu":1400,"bridge":"none","dns":["10.0.0.53"],"plugin-dirs":["/p"],"live-restore":true,"debug":true}`,
			[]string{"--exec-root", "/x/e"},
			plain(func(c *DaemonConfig) {
				c.Hosts, c.DefaultAddressPools, c.ICC, c.MTU, c.Bridge, c.Debug = []string{"unix:///x/s"}, pools, false, 1400, "none", true
				c.DNS, c.PluginDir, c.ExecRoot, c.PidFile = []netip.Addr{netip.MustParseAddr("10.0.0.53")}, []string{"/p"}, "/x/e", "/x/e/linkspan.pid"
			}),
		},
	}
	tests = append(tests, []struct {
		name, file string
		args       []string
		want       DaemonConfig
	}{
		{
			"default bridge", "",
			[]string{"--bip", "172.30.0.1/16", "--fixed-cidr", "172.30.4.0/24", "--default-gateway", "172.30.0.254", "--ip-masq=false"},
			plain(func(c *DaemonConfig) {
				c.BIP, c.FixedCIDR, c.Gateway = netip.MustParsePrefix("172.30.0.1/16"), netip.MustParsePrefix("172.30.4.0/24"), netip.MustParseAddr("172.30.0.254")
				c.Masquerade = false
			}),
		},
		{
			"options of networks", `{"default-network-opts":{"bridge":{"a":"1=2"},"macvlan":{"b":""}}}`, nil,
			plain(func(c *DaemonConfig) {
				c.NetworkOptions = map[string]map[string]string{"bridge": {"a": "1=2"}, "macvlan": {"b": ""}}
			}),
		},
	}...)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := daemonConfig(t, test.file, test.args...)
			if err != nil {
				t.Fatal(err)
			}
			comparers := cmp.Options{
				cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
				cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
				cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
				cmp.Comparer(func(a, b []string) bool { return strings.Join(a, "\n") == strings.Join(b, "\n") }),
			}
			if diff := cmp.Diff(test.want, got, comparers); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDaemonRefusals(t *testing.T) {
	tests := []struct {
		file, args, want string
	}{
		{"", "--host 127.0.0.1:1", "over TCP anybody could be root on this machine"},
		{"", "--host unix://", "want unix:///path or tcp://host:port"},
		{"", "--host tcp://127.0.0.1:1", "over TCP anybody could be root on this machine"},
		{"", "--tlsverify", "it needs --tlscacert, --tlscert and --tlskey"},
		{"", "--tlsverify --tlscacert /no/ca --tlscert /no/cert --tlskey /no/key", "invalid --tlsverify"},
		{"", "--bip 172.17.0.0/16", "the bridge's own IPv4 address"},
		{"", "--bip 172.17.0.1", "invalid --bip"},
		{"", "--bip fd00::1/64", "invalid --bip"},
		{"", "--mtu 9", "want 68 to 65535 bytes"},
		{"", "--ip here", "invalid --ip"},
		{"", "--dns here", "here is not an ip address"},
		{"", "--firewall-backend pf", "want auto, nftables or iptables"},
		{"", "--live-restore=false", "containers never die with this daemon"},
		{"", "--cluster-store consul://x", "want etcd://host:port"},
		{"", "--cluster-advertise eth0", "need --cluster-store"},
		{"", "--cluster-store etcd://127.0.0.1:2379 --cluster-store-opt kv.username", "want KEY=VALUE"},
		{`{"cluster-store":"etcd://127.0.0.1:2379","cluster-store-opts":["x"]}`, "", "want {"},
		{"", "--bridge a-name-that-is-too-long", "a link's name has 1 to 15 bytes"},
		{"", "--bridge none --bip 172.17.0.1/16", "conflicting options"},
		{"", "--bip6 fd00::1/64", "need --ipv6"},
		{"", "--ipv6 --bip6 fd00::/64", "the bridge's own IPv6 address"},
		{"", "--ipv6 --bip6 10.0.0.1/24", "invalid --bip6"},
		{"", "--ipv6 --fixed-cidr-v6 fd00::1/64", "invalid --fixed-cidr-v6"},
		{"", "--ipv6 --fixed-cidr-v6 fe80::/64", "invalid --fixed-cidr-v6"},
		{"", "--ipv6 --bip6 fd00::1/64 --fixed-cidr-v6 fd01::/64", "not part of the subnet"},
		{"", "--default-address-pool base=10.0.0.0/16,size=8", "invalid --default-address-pool"},
		{"", "--default-address-pool base=10.0.0.0/16,size=33", "invalid --default-address-pool"},
		{"", "--default-address-pool base=10.0.0.1/16,size=24", "not in canonical form"},
		{"", "--default-address-pool 10.0.0.0/16", "invalid --default-address-pool"},
		{"", "--config-file /nowhere/daemon.json", "unable to configure the daemon: open /nowhere/daemon.json"},
		{`{`, "", "invalid JSON"},
		{`{} {}`, "", "more behind the closing brace"},
		{`{"mtu":"1400"}`, "", `invalid value of "mtu": "1400": want a whole number`},
		{`{"icc":1}`, "", "want true or false"},
		{`{"bip":["x"]}`, "", "want a string"},
		{`{"dns":"10.0.0.1"}`, "", "want a list of strings"},
		{`{"default-address-pools":["x"]}`, "", "want [{"},
		{`{"cgroup-parent":[],"host":"x"}`, "", "the following directives don't match any configuration option: cgroup-parent, host"},
		{`{"mtu":1400,"hosts":["unix:///b"]}`, "--mtu 1300 -H unix:///a", "specified both as a flag and in the configuration file: hosts: (from flag: [unix:///a], from file: [\"unix:///b\"]), mtu: (from flag: 1300, from file: 1400)"},
	}
	for _, test := range tests {
		t.Run(test.args+test.file, func(t *testing.T) {
			got, err := daemonConfig(t, test.file, strings.Fields(test.args)...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %+v, error %v; want an error with %q", got, err, test.want)
			}
		})
	}
}

func TestAwaitSocket(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, []byte("starting\nno such bridge\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	gone <- errors.New("exit status 1")
	err := awaitSocket(t.Context(), filepath.Join(dir, "none"), gone, log)
	if err == nil || !strings.Contains(err.Error(), "it ended at once (exit status 1): no such bridge: see "+log) {
		t.Errorf("a daemon that died: %v", err)
	}
	socket := filepath.Join(dir, "s")
	go func() {
		time.Sleep(30 * time.Millisecond)
		listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { listener.Close() })
	}()
	if err := awaitSocket(t.Context(), socket, make(chan error), log); err != nil {
		t.Errorf("a daemon that was slow: %v", err)
	}
}

func TestWhere(t *testing.T) {
	tests := []struct {
		flag, env, want string
		chosen          bool
	}{
		{"", "", "unix:///run/linkspan/linkspan.sock", false},
		{"", "unix:///e", "unix:///e", true},
		{"unix:///f", "unix:///e", "unix:///f", true},
		{"/f", "", "unix:///f", true},
		{"127.0.0.1:1", "", "tcp://127.0.0.1:1", true},
	}
	for _, test := range tests {
		a := &app{host: test.flag, getenv: func(string) (string, bool) { return test.env, test.env != "" }}
		if host, chosen := a.where(); host != test.want || chosen != test.chosen {
			t.Errorf("-H %q, LINKSPAN_HOST=%q: %q, %v; want %q, %v", test.flag, test.env, host, chosen, test.want, test.chosen)
		}
	}
}
