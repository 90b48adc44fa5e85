package cluster_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store/cluster"
)

// deed is something that was done about a thing that one has at a time: an
// address, a number.
type deed struct {
	what  string // the thing
	who   string
	verb  verb
	other string // refused: whom the refusal named
}

type verb string

const (
	took    verb = "took"    // nobody had it, who has it
	gave    verb = "gave"    // who had it, nobody has it
	refused verb = "refused" // the other had it
)

// exclusive is the model: each thing is a register with its holder's name.
func exclusive() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := make(map[string][]porcupine.Operation)
			for _, op := range history {
				what := op.Input.(deed).what
				parts[what] = append(parts[what], op)
			}
			var all [][]porcupine.Operation
			for _, part := range parts {
				all = append(all, part)
			}
			return all
		},
		Init: func() any { return "" },
		Step: func(state, input, _ any) (bool, any) {
			switch d := input.(deed); d.verb {
			case took:
				return state == "", d.who
			case gave:
				return state == d.who, ""
			default:
				return state == d.other, state
			}
		},
	}
}

// record of what was done, from many goroutines.
type diary struct {
	mu      sync.Mutex
	began   time.Time
	history []porcupine.Operation
	unknown map[string]bool // whose attempts had no clear end
}

func newDiary() *diary { return &diary{began: time.Now(), unknown: make(map[string]bool)} }

func (d *diary) now() int64 { return int64(time.Since(d.began)) }

// never is the end of what may take effect at any later time: a leave is kept
// and done later while the store is away.
const never = int64(1) << 62

func (d *diary) note(call, end int64, is deed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.history = append(d.history, porcupine.Operation{Input: is, Call: call, Return: end})
}

func (d *diary) doubt(who string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unknown[who] = true
}

// judge checks the history. Refusals by those whose own attempt had no clear end
// say nothing.
func (d *diary) judge(t *testing.T, name string) {
	t.Helper()
	history := slices.DeleteFunc(slices.Clone(d.history), func(op porcupine.Operation) bool { return d.unknown[op.Input.(deed).other] })
	counts := make(map[verb]int)
	for _, op := range history {
		counts[op.Input.(deed).verb]++
	}
	t.Logf("%s: %v, %d without a clear end", name, counts, len(d.unknown))
	if counts[took] == 0 || counts[gave] == 0 || counts[refused] == 0 {
		t.Errorf("%s: the history is one-sided: %v", name, counts)
	}
	if result := porcupine.CheckOperationsTimeout(exclusive(), history, patience); result != porcupine.Ok {
		for _, part := range exclusive().Partition(history) {
			if porcupine.CheckOperationsTimeout(exclusive(), part, patience) == porcupine.Ok {
				continue
			}
			t.Errorf("%s: the history is %s", name, result)
			for _, op := range part {
				t.Logf("%d %d %v", op.Call, op.Return, op.Input)
			}
		}
	}
	// The check itself can fail: somebody else took what somebody has.
	for _, op := range history {
		if is := op.Input.(deed); is.verb == took {
			twice := append(slices.Clone(history), porcupine.Operation{Input: deed{what: is.what, who: "forger", verb: took}, Call: op.Call, Return: op.Return})
			if porcupine.CheckOperationsTimeout(exclusive(), twice, patience) != porcupine.Illegal {
				t.Errorf("%s: a history in which two have %s is found to be good", name, is.what)
			}
			break
		}
	}
}

var (
	holderOf  = regexp.MustCompile(`is held by container (\S+) on host`)
	networkOf = regexp.MustCompile(`network (\S+) \(\w+\) has it`)
)

// TestPartitions joins and leaves, makes and removes networks, on three hosts,
// while members of etcd and hosts are cut off from each other. No address and no
// number is ever given twice; in the end all agree, and nothing is left.
func TestPartitions(t *testing.T) {
	s := newSite(t)
	store, _ := s.etcd(t, 3)
	var hosts []*cluster.Cluster
	for i := range 3 {
		hosts = append(hosts, host(t, s.machine(t, i+1), i+1, store.url(), short(6*time.Second, 10*time.Minute)))
	}
	ready(t, hosts...)
	n := lab(t, hosts[0], "lab", "10.0.0.0/24")
	for _, c := range hosts {
		keeper := container("keeper-" + c.Self().Name)
		join(t, c, n, keeper)
	}
	store.blocks(t, 3)

	addresses, numbers := newDiary(), newDiary()
	over := make(chan struct{})
	var workers, faults sync.WaitGroup
	for i, c := range hosts {
		for j := range 2 {
			workers.Go(func() { joinAndLeave(t, c, n, fmt.Sprintf("w%d-%d", i, j), addresses) })
		}
		workers.Go(func() { makeAndRemove(t, c, i, numbers) })
	}
	faults.Go(func() { s.disturb(t, over) })
	workers.Wait()
	close(over)
	faults.Wait()
	ready(t, hosts...)

	live := 3 // the keepers
	for _, c := range hosts {
		eventually(t, "all agree, and the store has what they have", func() bool {
			return len(c.Endpoints(n.ID)) == live && names(c.Endpoints(n.ID)) == names(hosts[0].Endpoints(n.ID)) &&
				len(store.keys(t, "claims/")) == live && len(store.keys(t, "endpoints/")) == live && len(c.Members()) == len(hosts)
		})
		if lost := follow(t, c).told(); len(lost) > 0 {
			t.Errorf("lost: %v", lost)
		}
	}
	addresses.judge(t, "addresses")
	numbers.judge(t, "numbers")
}

// joinAndLeave is a worker: it joins, for any address or one of a few, and
// leaves again.
func joinAndLeave(t *testing.T, c *cluster.Cluster, n network.Network, name string, d *diary) {
	for round := range 40 {
		e := container(fmt.Sprintf("%s-%d", name, round))
		asked := ""
		if rand.IntN(2) == 0 {
			asked = fmt.Sprintf("10.0.0.%d", 20+rand.IntN(3))
			e.IPv4 = netip.PrefixFrom(netip.MustParseAddr(asked), 24)
		}
		call := d.now()
		joined, err := c.Join(t.Context(), n, e)
		end := d.now()
		var other []string
		if err != nil {
			other = holderOf.FindStringSubmatch(err.Error())
		}
		switch {
		case err == nil:
			is := deed{what: joined.IPv4.Addr().String(), who: e.Name, verb: took}
			d.note(call, end, is)
			pauseABit()
			is.verb, call = gave, d.now()
			if err := c.Leave(t.Context(), joined); err != nil {
				t.Errorf("%s leaves: %v", e.Name, err)
			}
			d.note(call, never, is)
		case other != nil:
			d.note(call, end, deed{what: asked, who: e.Name, verb: refused, other: other[1]})
			d.doubt(e.Name) // an earlier attempt may arrive late, and is then given back
		case errors.Is(err, linkspan.ErrUnavailable), errors.Is(err, linkspan.ErrConflict):
			d.doubt(e.Name) // away, or the reserve of a host
		default:
			t.Errorf("%s joins: %v", e.Name, err)
		}
	}
}

// makeAndRemove is a worker: it makes networks with one of a few numbers, and
// removes them again.
func makeAndRemove(t *testing.T, c *cluster.Cluster, worker int, d *diary) {
	for round := range 20 {
		name := fmt.Sprintf("n%d-%d", worker, round)
		vni := uint32(rand.IntN(2) + 300)
		choose := record(name, fmt.Sprintf("10.%d.%d.0/24", worker+1, round), func(n *network.Network) { n.VNI = vni })
		call := d.now()
		n, err := c.CreateNetwork(t.Context(), choose)
		end := d.now()
		is := deed{what: fmt.Sprint(vni), who: name, verb: took}
		var other []string
		if err != nil {
			other = networkOf.FindStringSubmatch(err.Error())
		}
		switch {
		case err == nil:
			d.note(call, end, is)
			pauseABit()
			call = d.now()
			removeSurely(t, c, n.ID)
			is.verb = gave
			d.note(call, d.now(), is)
		case other != nil:
			is.verb, is.other = refused, other[1]
			d.note(call, end, is)
		case errors.Is(err, linkspan.ErrUnavailable):
			d.doubt(name)
			unsure, err := choose(nil, vni)
			must(t, err)
			removeSurely(t, c, unsure.ID)
		default:
			t.Errorf("making %s: %v", name, err)
		}
	}
}

func removeSurely(t *testing.T, c *cluster.Cluster, id linkspan.ID) {
	eventually(t, "a network is removed", func() bool {
		err := c.RemoveNetwork(t.Context(), id)
		return err == nil || errors.Is(err, linkspan.ErrNotFound)
	})
}

func pauseABit() { time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond) }

// disturb cuts wires and mends them again until it is over: those of etcd's
// members among each other, those of members to all, those of hosts.
func (s *site) disturb(t *testing.T, over <-chan struct{}) {
	for {
		wire, number := rand.IntN(2), 101+rand.IntN(3)
		if wire == 0 && rand.IntN(2) == 0 {
			number = 1 + rand.IntN(3)
		}
		s.cut(t, wire, number)
		select {
		case <-over:
			s.mend(t, wire, number)
			return
		case <-time.After(time.Duration(500+rand.IntN(3000)) * time.Millisecond):
		}
		s.mend(t, wire, number)
		select {
		case <-over:
			return
		case <-time.After(time.Duration(200+rand.IntN(500)) * time.Millisecond):
		}
	}
}
