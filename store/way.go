package store

import "net/netip"

// Way is what a link lets through on a bridge that keeps its containers apart:
// one container may ask what another exposes.
type Way struct {
	Bridge  string
	MAC     string   // of the bridge
	From    End      // who asks
	To      End      // who is asked
	Exposed []string // its ports: 80/tcp
}

// End is where a sandbox is plugged into the bridge.
type End struct {
	NS, Interface string
	IPv4, IPv6    netip.Addr `json:",omitzero"`
}

// Pairs are the addresses of the two, by family: who asks, who is asked.
func (w Way) Pairs() (pairs [][2]netip.Addr) {
	for _, pair := range [][2]netip.Addr{{w.From.IPv4, w.To.IPv4}, {w.From.IPv6, w.To.IPv6}} {
		if pair[0].IsValid() && pair[1].IsValid() {
			pairs = append(pairs, pair)
		}
	}
	return pairs
}
