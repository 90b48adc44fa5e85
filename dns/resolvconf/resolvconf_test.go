package resolvconf

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

var compare = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

func TestParse(t *testing.T) {
	got := Parse([]byte(`# comment
; another
nameserver 10.0.0.2 # the first
nameserver	fe80::1%eth0
nameserver not.an.address
nameserver
domain first.example
search corp.example lab.example
options edns0 trust-ad
options ndots:2
sortlist 10.0.0.0/8
  nameserver 10.0.0.3`))
	want := Config{
		Nameservers: addrs("10.0.0.2", "fe80::1%eth0", "10.0.0.3"),
		Search:      []string{"corp.example", "lab.example"},
		Options:     []string{"edns0", "trust-ad", "ndots:2"},
		Other:       []string{"sortlist 10.0.0.0/8"},
		Invalid:     []string{"not.an.address"},
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestBuild(t *testing.T) {
	const top = header
	tests := []struct {
		name    string
		host    string
		options Options
		want    string
		servers string
		ndots   bool
	}{
		{
			name:    "internal",
			host:    "nameserver 10.0.0.2\nsearch corp.example\noptions edns0 trust-ad\n",
			options: Options{},
			want: `nameserver 127.0.0.11
search corp.example
options edns0 trust-ad ndots:0

# Based on host file: '/etc/resolv.conf' (internal resolver)
# ExtServers: [host(10.0.0.2)]
# Overrides: []
# Option ndots from: internal
`,
			servers: "host(10.0.0.2)",
		},
		{
			name:    "internal, all overridden",
			host:    "nameserver 10.0.0.2\nsearch corp.example\noptions ndots:3\nlookup file bind\n",
			options: Options{Servers: []string{"127.0.0.11", "10.77.0.53", "fd00::53"}, Search: []string{"."}, Options: []string{"rotate"}},
			want: `nameserver 127.0.0.11
options rotate ndots:0
lookup file bind

# Based on host file: '/etc/resolv.conf' (internal resolver)
# ExtServers: [10.77.0.53 fd00::53]
# Overrides: [nameservers search options]
# Option ndots from: internal
`,
			servers: "10.77.0.53 fd00::53",
		},
		{
			name:    "internal, no servers",
			host:    "nameserver nonsense\noptions ndots:x ndots: edns0\n",
			options: Options{Search: []string{"a.example", "b.example"}},
			want: `nameserver 127.0.0.11
search a.example b.example
options edns0 ndots:0

# Based on host file: '/etc/resolv.conf' (internal resolver)
# NO EXTERNAL NAMESERVERS DEFINED
# Invalid nameservers: [nonsense]
# Overrides: [search]
# Option ndots from: internal
`,
		},
		{
			name:    "internal, the host's ndots, a resolver outside",
			host:    "nameserver 127.0.0.11\nnameserver 127.0.0.53\noptions ndots:5\n",
			options: Options{},
			want: `nameserver 127.0.0.11
options ndots:5

# Based on host file: '/etc/resolv.conf' (internal resolver)
# ExtServers: [host(127.0.0.11) host(127.0.0.53)]
# Overrides: []
# Option ndots from: host
`,
			servers: "host(127.0.0.11) host(127.0.0.53)",
			ndots:   true,
		},
		{
			name:    "internal, the user's ndots",
			host:    "nameserver 10.0.0.2\n",
			options: Options{Options: []string{"ndots:1"}},
			want: `nameserver 127.0.0.11
options ndots:1

# Based on host file: '/etc/resolv.conf' (internal resolver)
# ExtServers: [host(10.0.0.2)]
# Overrides: [options]
# Option ndots from: override
`,
			servers: "host(10.0.0.2)",
			ndots:   true,
		},
		{
			name:    "legacy",
			host:    "nameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.2\nnameserver fd00::2\noptions ndots:x\n",
			options: Options{Mode: Legacy},
			want: `nameserver 10.0.0.2
options ndots:x

# Based on host file: '/etc/resolv.conf' (legacy)
# Overrides: []
`,
		},
		{
			name:    "legacy, with IPv6",
			host:    "nameserver 127.0.0.53\nnameserver ::1\nnameserver fd00::2\n",
			options: Options{Mode: Legacy, IPv6: true},
			want: `nameserver fd00::2

# Based on host file: '/etc/resolv.conf' (legacy)
# Overrides: []
`,
		},
		{
			name:    "legacy, nothing left",
			host:    "nameserver 127.0.0.53\noptions ndots:2\n",
			options: Options{Mode: Legacy, IPv6: true},
			want: `nameserver 8.8.8.8
nameserver 8.8.4.4
nameserver 2001:4860:4860::8888
nameserver 2001:4860:4860::8844
options ndots:2

# Based on host file: '/etc/resolv.conf' (legacy)
# Used default nameservers.
# Overrides: []
# Option ndots from: host
`,
			ndots: true,
		},
		{
			name:    "legacy, the user's servers stay",
			host:    "",
			options: Options{Mode: Legacy, Servers: []string{"127.0.0.1", "fd00::1"}},
			want: `nameserver 127.0.0.1
nameserver fd00::1

# Based on host file: '/etc/resolv.conf' (legacy)
# Overrides: [nameservers]
`,
		},
		{
			name:    "internal, a server that is none",
			options: Options{Servers: []string{"10.77.0.53", "dns.example"}},
			want: `nameserver 127.0.0.11
options ndots:0

# Based on host file: '/etc/resolv.conf' (internal resolver)
# ExtServers: [10.77.0.53]
# Invalid nameservers: [dns.example]
# Overrides: [nameservers]
# Option ndots from: internal
`,
			servers: "10.77.0.53",
		},
		{
			name:    "host",
			host:    "nameserver 127.0.0.53\nsearch corp.example\n",
			options: Options{Mode: HostMode, Search: []string{"lab.example"}},
			want: `nameserver 127.0.0.53
search lab.example

# Based on host file: '/etc/resolv.conf'
# Overrides: [search]
`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.options.Path = Path
			got := Build(Parse([]byte(test.host)), test.options)
			if diff := cmp.Diff(top+test.want, string(got.Text)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			var servers []string
			for _, s := range got.Upstreams {
				servers = append(servers, s.String())
			}
			if s := strings.Join(servers, " "); s != test.servers {
				t.Errorf("servers %s, want %s", s, test.servers)
			}
			for _, u := range got.Upstreams {
				if u.Addr.Port() != 53 {
					t.Errorf("upstream %v, want port 53", u.Addr)
				}
			}
			if got.NDotsSet != test.ndots {
				t.Errorf("NDotsSet %v, want %v", got.NDotsSet, test.ndots)
			}
		})
	}
}

func TestSource(t *testing.T) {
	broken := errors.New("input/output error")
	stub, plain, behind := "nameserver 127.0.0.53\n", "nameserver 10.0.0.2\n", "nameserver 10.0.0.9\n"
	tests := []struct {
		name, etc, run string
		err            error
		path, content  string
	}{
		{name: "plain", etc: plain, run: behind, path: Path, content: plain},
		{name: "stub", etc: stub, run: behind, path: PathBehindStub, content: behind},
		{name: "stub and more", etc: stub + plain, run: behind, path: Path, content: stub + plain},
		{name: "stub alone", etc: stub, path: Path, content: stub},
		{name: "missing", path: Path},
		{name: "unreadable", err: broken},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path, content, err := Source(func(path string) ([]byte, error) {
				file := map[string]string{Path: test.etc, PathBehindStub: test.run}[path]
				switch {
				case test.err != nil:
					return nil, test.err
				case file == "":
					return nil, fs.ErrNotExist
				}
				return []byte(file), nil
			})
			if path != test.path || string(content) != test.content || !errors.Is(err, test.err) {
				t.Errorf("got %q, %q, %v", path, content, err)
			}
		})
	}
}

func TestSum(t *testing.T) {
	const want = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // sha256sum </dev/null
	if got := Sum(nil); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if Sum([]byte("edited")) == want {
		t.Error("an edit goes unnoticed")
	}
}

// FuzzRoundTrip: what Bytes writes, Parse reads back; a built file reads back
// as the Config that it was built from, and names only the resolver.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("nameserver 10.0.0.2\nsearch a b\noptions ndots:1 edns0\nsortlist x\n"))
	f.Add([]byte("domain a\ndomain\nnameserver fe80::1%e\noptions # x\n;"))
	f.Add([]byte("options ndots: ndots:-1\nsearch\nfoo # bar\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		first := Parse(content)
		second := Parse(first.Bytes())
		first.Invalid = nil
		if diff := cmp.Diff(first, second, compare); diff != "" {
			t.Errorf("not read back (-first +second)\n%s", diff)
		}
		for _, mode := range []Mode{Internal, Legacy, HostMode} {
			built := Build(first, Options{Mode: mode, Path: Path})
			if diff := cmp.Diff(built.Config, Parse(built.Text), compare); diff != "" {
				t.Errorf("mode %d: the text says something else (-config +text)\n%s", mode, diff)
			}
			if mode != HostMode && len(built.Config.Nameservers) == 0 {
				t.Errorf("mode %d: no name server", mode)
			}
			if mode == Internal && !hasNDots(built.Config.Options) {
				t.Errorf("no ndots in %q", built.Text)
			}
		}
	})
}
