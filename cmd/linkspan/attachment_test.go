package main

import (
	"encoding/csv"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
)

func TestParseAttachment(t *testing.T) {
	for text, want := range map[string]attachment{
		"lab":      {name: "lab"},
		"name=Lab": {name: "Lab"},
		"name=lab,ip=10.0.0.9,ip6=fd00::9,mac-address=02:00:00:00:00:09": {name: "lab", ip: "10.0.0.9", ip6: "fd00::9", mac: "02:00:00:00:00:09"},
		"alias=a, Alias=b ,name=lab,gw-priority=-3":                      {name: "lab", aliases: []string{"a", "b"}, gwPriority: -3},
		"name=lab,link-local-ip=169.254.1.1,link=x:y":                    {name: "lab", linkLocal: []string{"169.254.1.1"}, links: []string{"x:y"}},
		`name=lab,"driver-opt=sysctls=a=1,b=2"`:                          {name: "lab", driverOpts: []string{"sysctls=a=1,b=2"}},
	} {
		got, err := parseAttachment(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v %v, want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "the name is empty", "ip=10.0.0.9": "name=NETWORK is missing", "name=lab,nosuch=1": `invalid field key "nosuch"`,
		"name=lab,ip": `invalid field "ip"`, "name=lab,gw-priority=x": `invalid gw-priority "x"`, `name=lab,"`: "invalid --network", "=": "invalid field",
	} {
		if got, err := parseAttachment(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v %v, want %s", text, got, err, want)
		}
	}
}

// What is understood can be written out and is understood the same, and what
// becomes of it in a request is of the right family.
func FuzzParseAttachment(f *testing.F) {
	f.Add("lab")
	f.Add("name=lab,ip=10.0.0.9,ip6=fd00::9,alias=a,alias=b,mac-address=02:00:00:00:00:09")
	f.Add(`name=lab,link-local-ip=169.254.1.1,"driver-opt=k=a,b",gw-priority=-1,link=x:y`)
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAttachment(text)
		if err != nil {
			return
		}
		if again, err := parseAttachment(a.longForm(t)); err != nil || !reflect.DeepEqual(again, a) {
			t.Fatalf("%q is %+v; written out as %q it is %+v (%v)", text, a, a.longForm(t), again, err)
		}
		settings, err := a.settings()
		if err != nil || settings.IPAMConfig == nil {
			return
		}
		checkFamilies(t, settings.IPAMConfig)
	})
}

func checkFamilies(t *testing.T, c *network.EndpointIPAMConfig) {
	t.Helper()
	if c.IPv4Address.IsValid() && !c.IPv4Address.Is4() || c.IPv6Address.IsValid() && (!c.IPv6Address.Is6() || c.IPv6Address.Is4In6()) {
		t.Errorf("addresses of the wrong family: %+v", c)
	}
	for _, addr := range c.LinkLocalIPs {
		if addr == (netip.Addr{}) {
			t.Errorf("an empty link-local address: %+v", c)
		}
	}
}

// longForm writes an attachment as --network takes it.
func (a attachment) longForm(t *testing.T) string {
	fields := []string{"name=" + a.name}
	add := func(key string, values ...string) {
		for _, value := range values {
			fields = append(fields, key+"="+value)
		}
	}
	for key, value := range map[string]string{"ip": a.ip, "ip6": a.ip6, "mac-address": a.mac} {
		if value != "" {
			add(key, value)
		}
	}
	add("alias", a.aliases...)
	add("link", a.links...)
	add("link-local-ip", a.linkLocal...)
	add("driver-opt", a.driverOpts...)
	if a.gwPriority != 0 {
		add("gw-priority", strconv.Itoa(a.gwPriority))
	}
	var text strings.Builder
	w := csv.NewWriter(&text)
	if err := w.Write(fields); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	return strings.TrimSuffix(text.String(), "\n")
}
