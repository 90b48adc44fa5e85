package dns

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Config is one sandbox's view of the names around it. A Resolver keeps its
// own copy: later changes to the Zones are seen, changes to the other fields
// are not; call Update for those.
type Config struct {
	// Zones of the sandbox's networks in order of gateway priority. The first
	// zone that knows a name answers for it; zones are never merged.
	Zones []*Zone
	// Links maps a name that only this sandbox knows to the name that is
	// looked up in its place when the question comes, so that the target may
	// appear later. A name in Links never means anything else.
	Links map[string]string
	// Upstreams are asked what no zone knows, in this order; those after the
	// third are left out, as Docker does. With none, the answer is SERVFAIL. A
	// sandbox without a way out gets only the servers that are dialled from
	// its own namespace.
	Upstreams []Upstream
	// NDotsSet says that the host or the user chose the option ndots. An
	// unknown single-label name is then answered with an empty NOERROR and
	// goes nowhere, so that the client's stub resolver tries its search list.
	NDotsSet bool
	// Limits bounds forwarding; zero fields have defaults.
	Limits Limits
}

// Upstream is a server that answers what no zone knows.
type Upstream struct {
	Addr netip.AddrPort
	// Dial opens a socket to the server; the caller so chooses the namespace
	// that the question leaves from. Nil dials from the process's own. It must
	// choose a fresh source port each time: the port is half of what protects
	// the answer from forgery.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Limits bounds the forwarding of one sandbox.
type Limits struct {
	InFlight  int           // questions out at a time; 0 means 256
	Waiting   int           // questions that wait for their turn; 0 means 4096
	Timeout   time.Duration // for one server, and for the wait; 0 means 4 s
	HeadStart time.Duration // how long a server is alone before the next is asked as well; 0 means 250 ms
	Distrust  time.Duration // how long a server that was late goes last; 0 means 30 s
}

func (l Limits) withDefaults() Limits {
	if l.InFlight <= 0 {
		l.InFlight = 256
	}
	if l.Waiting <= 0 {
		l.Waiting = 4096
	}
	if l.Timeout <= 0 {
		l.Timeout = 4 * time.Second
	}
	if l.HeadStart <= 0 {
		l.HeadStart = 250 * time.Millisecond
	}
	if l.Distrust <= 0 {
		l.Distrust = 30 * time.Second
	}
	return l
}

const maxUpstreams = 3

// view is a Config made ready for look-ups. It is immutable and swapped whole.
type view struct {
	zones     []*Zone
	links     map[string][]byte // folded on both sides
	upstreams []Upstream
	ndotsSet  bool
	limits    Limits
}

func newView(c Config) *view {
	v := &view{
		zones:     slices.Clone(c.Zones),
		upstreams: slices.Clone(c.Upstreams[:min(len(c.Upstreams), maxUpstreams)]),
		ndotsSet:  c.NDotsSet,
		limits:    c.Limits.withDefaults(),
	}
	if len(c.Links) > 0 {
		v.links = make(map[string][]byte, len(c.Links))
		for alias, target := range maps.All(c.Links) {
			v.links[fold(alias)] = []byte(fold(target))
		}
	}
	return v
}

// resolve finds the record of a folded name without its trailing dot, or nil.
// Both names and networks may hold dots, so a.b.c is first a.b.c in each
// network, then a.b in the network c, then a in the network b.c. Wildcards are
// looked at in the same order when all of that has failed.
func (v *view) resolve(name []byte) *record {
	rec := v.resolveBy((*Zone).find, name)
	if rec == nil && v.wild() {
		rec = v.resolveBy((*Zone).findWild, name)
	}
	return rec
}

func (v *view) wild() bool {
	for _, z := range v.zones {
		if z.wild.Load() > 0 {
			return true
		}
	}
	return false
}

func (v *view) resolveBy(find func(*Zone, []byte) *record, name []byte) *record {
	if rec := v.resolveIn(find, name, nil); rec != nil {
		return rec
	}
	for i := len(name) - 1; i > 0; i-- {
		if name[i] != '.' {
			continue
		}
		if rec := v.resolveIn(find, name[:i], name[i+1:]); rec != nil {
			return rec
		}
	}
	return nil
}

// resolveIn looks in the zones of one network, or in all when network is nil.
func (v *view) resolveIn(find func(*Zone, []byte) *record, name, network []byte) *record {
	if target, ok := v.links[string(name)]; ok {
		name = target
	}
	for _, z := range v.zones {
		if network != nil && string(network) != z.folded {
			continue
		}
		if rec := find(z, name); rec != nil {
			return rec
		}
	}
	return nil
}

// pointer finds the PTR record of an address in the first zone that has one.
func (v *view) pointer(addr netip.Addr) *pointer {
	for _, z := range v.zones {
		if p := z.pointer(addr); p != nil {
			return p
		}
	}
	return nil
}
