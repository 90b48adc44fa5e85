package endpoint

import (
	"errors"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
)

func TestParseSysctls(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "",
		"net.ipv4.conf.IFNAME.log_martians=1": "net/ipv4/conf/eth1/log_martians=1",
		"net.ipv6.conf.ifname.accept_ra=0":    "net/ipv6/conf/eth1/accept_ra=0",
		"net.mpls.conf.IFNAME.input=1,net.ipv4.neigh.IFNAME.base_reachable_time_ms=10": "net/mpls/conf/eth1/input=1 net/ipv4/neigh/eth1/base_reachable_time_ms=10",
	} {
		all, err := ParseSysctls(text)
		var words []string
		for _, s := range all {
			words = append(words, s.Key("eth1")+"="+s.Value)
		}
		if got := strings.Join(words, " "); err != nil || got != want {
			t.Errorf("%q: %q %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		"net.ipv4.conf.eth0.log_martians=1", "net.ipv4.conf.IFNAME.log_martians", "kernel.shmmax=1", "net.core.conf.IFNAME.x=1",
		"net.ipv4.conf.IFNAME=1", "net.ipv4.conf.IFNAME.=1", ",", "net.ipv4.conf.IFNAME.../../x=1", "net.ipv4..IFNAME.x=1",
	} {
		if all, err := ParseSysctls(text); !errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), "unrecognised network interface sysctl") {
			t.Errorf("%q: %v %v", text, all, err)
		}
	}
}

// Whatever is accepted stays below the parameters of its own interface, and
// reads the same when it is written out.
func FuzzParseSysctls(f *testing.F) {
	f.Add("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.accept_ra=0")
	f.Add("net.ipv4.conf.IFNAME.a.b=c=d")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ParseSysctls(text)
		if err != nil {
			return
		}
		var words []string
		for _, s := range all {
			words = append(words, s.String())
			parts := strings.Split(s.Key("eth0"), "/")
			if len(parts) < 5 || parts[0] != "net" || parts[3] != "eth0" {
				t.Errorf("%q leads to %s", text, s.Key("eth0"))
			}
			for _, part := range parts {
				if part == "" || part == ".." {
					t.Errorf("%q leads to %s", text, s.Key("eth0"))
				}
			}
		}
		again, err := ParseSysctls(strings.Join(words, ","))
		if err != nil || len(again) != len(all) {
			t.Fatalf("%q written out as %q: %v", text, words, err)
		}
		for i := range all {
			if again[i] != all[i] {
				t.Errorf("%q written out reads %+v, not %+v", text, again[i], all[i])
			}
		}
	})
}
