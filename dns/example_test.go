package dns_test

import (
	"fmt"
	"net/netip"

	"github.com/linkspan/linkspan/dns"
)

func ExampleZone() {
	zone := dns.NewZone("lab")
	zone.Set("4f5c", dns.Entry{
		Names: []string{"web", "www"},
		Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.2")},
	})
	fmt.Println(zone.Lookup("WWW"))
	fmt.Println(zone.Reverse(netip.MustParseAddr("10.77.0.2")))
	zone.Delete("4f5c")
	fmt.Println(zone.Lookup("web"))
	// Output:
	// [10.77.0.2] true
	// web.lab. true
	// [] false
}

func ExampleHostsFile() {
	file := dns.HostsFile{Hostname: "foobar.example.com", Own: []netip.Addr{netip.MustParseAddr("172.18.0.2")}}
	fmt.Printf("%s", file.Render())
	// Output:
	// 127.0.0.1	localhost
	// 172.18.0.2	foobar.example.com foobar
}
