package main

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"net/netip"
	"os"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/dns"
)

func main() {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 11), Port: 53})
	if err != nil {
		panic(err)
	}
	t, err := net.Listen("tcp4", "127.0.0.11:53")
	if err != nil {
		panic(err)
	}
	z := dns.NewZone("lab")
	for i := 0; i < 400; i++ {
		z.Set(linkspan.NewID(), dns.Entry{Names: []string{fmt.Sprintf("c%d", i)}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)})}})
	}
	_, err = dns.NewServer().Start(u, t, dns.Config{Zones: []*dns.Zone{z}})
	if err != nil {
		panic(err)
	}
	fmt.Println("ok")
	if len(os.Args) > 1 {
		http.ListenAndServe("127.0.0.1:6060", nil)
	}
	select {}
}
