package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestNameFlags(t *testing.T) {
	byFlags, err := daemonConfig(t, "", "--dns", "192.0.2.1", "--dns", "2001:db8::1", "--dns-search", "a.test", "--dns-search", "b.test", "--dns-opt", "ndots:2",
		"--host-gateway-ip", "192.0.2.9", "--host-gateway-ip", "2001:db8::9", "--bridge-names", "--dns-listen", "127.0.0.54")
	if err != nil {
		t.Fatal(err)
	}
	byFile, err := daemonConfig(t, `{"dns": ["192.0.2.1", "2001:db8::1"], "dns-search": ["a.test", "b.test"], "dns-opts": ["ndots:2"],
		"host-gateway-ips": ["192.0.2.9", "2001:db8::9"], "bridge-names": true, "dns-listen": "127.0.0.54:53"}`)
	if err != nil {
		t.Fatal(err)
	}
	if byFlags, byFile := fmt.Sprint(byFlags.NameConfig), fmt.Sprint(byFile.NameConfig); byFlags != byFile {
		t.Errorf("flags: %s, file: %s", byFlags, byFile)
	}
	if got := byFlags.DNSListen.String(); got != "127.0.0.54:53" || !byFlags.BridgeNames || len(byFlags.DNS) != 2 {
		t.Errorf("%+v", byFlags.NameConfig)
	}
	for _, args := range [][]string{
		{"--dns", "nowhere"},
		{"--dns-search", "a b"},
		{"--dns-search", ""},
		{"--dns-opt", "two words"},
		{"--dns-opt", ""},
		{"--host-gateway-ip", "host"},
		{"--host-gateway-ip", "0.0.0.0"},
		{"--host-gateway-ip", "192.0.2.9", "--host-gateway-ip", "192.0.2.10"},
		{"--dns-listen", "0.0.0.0"},
		{"--dns-listen", "127.0.0.54:0"},
		{"--dns-listen", "localhost:53"},
		{"--dns-listen", "224.0.0.1"},
	} {
		if config, err := daemonConfig(t, "", args...); err == nil || !strings.Contains(err.Error(), args[0]) {
			t.Errorf("%q: %v, %+v", args, err, config.NameConfig)
		}
	}
}
