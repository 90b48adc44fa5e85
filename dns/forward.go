package dns

import (
	"context"
	"net/netip"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

// job is a query on its way to the upstream servers. Its reply is called
// exactly once, with nil when the resolver closes and no answer is due.
type job struct {
	view     *view
	query    []byte
	tcp      bool
	reply    func([]byte)
	deadline time.Time // of its wait for a turn
}

// forwarder spends one sandbox's budget of forwarded questions. Those over the
// budget wait in a list, not on goroutines: a storm costs the bytes of its
// packets.
//
//	submit ──▶ in flight (a goroutine each, ≤ Limits.InFlight) ──▶ reply
//	   └─────▶ waiting (≤ Limits.Waiting, ≤ Limits.Timeout) ──▶ in flight, or REFUSED
type forwarder struct {
	resolver *Resolver

	mu       sync.Mutex
	inFlight int
	waiting  []job // in order of deadline
	timer    *time.Timer
	late     map[netip.AddrPort]time.Time // server → until when it goes last
	closed   bool
}

func newForwarder(r *Resolver) *forwarder {
	return &forwarder{resolver: r, late: make(map[netip.AddrPort]time.Time)}
}

// submit takes a job; it never waits.
func (f *forwarder) submit(j job) {
	if len(j.view.upstreams) == 0 {
		f.resolver.stats.failed.Add(1)
		j.reply(failure(j.query, mdns.RcodeServerFailure))
		return
	}
	limits := j.view.limits
	f.mu.Lock()
	switch {
	case f.closed:
		f.mu.Unlock()
		j.reply(nil)
	case f.inFlight < limits.InFlight:
		f.inFlight++
		f.resolver.done.Add(1)
		f.mu.Unlock()
		go f.work(j)
	case len(f.waiting) < limits.Waiting:
		j.deadline = time.Now().Add(limits.Timeout)
		f.waiting = append(f.waiting, j)
		if len(f.waiting) == 1 {
			f.timer = time.AfterFunc(limits.Timeout, f.expire)
		}
		f.mu.Unlock()
	default:
		f.mu.Unlock()
		f.refuse(j)
	}
}

// work carries jobs out until none waits.
func (f *forwarder) work(j job) {
	defer f.resolver.done.Done()
	for ok := true; ok; j, ok = f.next() {
		f.resolver.stats.forwarded.Add(1)
		answer := f.exchange(f.resolver.ctx, j)
		if answer == nil && f.resolver.ctx.Err() == nil {
			f.resolver.stats.failed.Add(1)
			answer = failure(j.query, mdns.RcodeServerFailure)
		}
		j.reply(answer)
	}
}

// next takes a job from the list, or gives the caller's place back.
func (f *forwarder) next() (job, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting) == 0 {
		f.inFlight--
		return job{}, false
	}
	j := f.waiting[0]
	f.waiting[0] = job{}
	f.waiting = f.waiting[1:]
	return j, true
}

// expire refuses what has waited too long. It runs on the timer.
func (f *forwarder) expire() {
	var expired []job
	f.mu.Lock()
	now := time.Now()
	for len(f.waiting) > 0 && !f.waiting[0].deadline.After(now) {
		expired = append(expired, f.waiting[0])
		f.waiting[0] = job{}
		f.waiting = f.waiting[1:]
	}
	if len(f.waiting) > 0 {
		f.timer = time.AfterFunc(time.Until(f.waiting[0].deadline), f.expire)
	}
	f.mu.Unlock()
	for _, j := range expired {
		f.refuse(j)
	}
}

func (f *forwarder) refuse(j job) {
	f.resolver.stats.refused.Add(1)
	j.reply(failure(j.query, mdns.RcodeRefused))
}

// close drops what waits. What is in flight ends with the resolver's context.
func (f *forwarder) close() {
	f.mu.Lock()
	waiting := f.waiting
	f.waiting, f.closed = nil, true
	if f.timer != nil {
		f.timer.Stop()
	}
	f.mu.Unlock()
	for _, j := range waiting {
		j.reply(nil)
	}
}

// order returns the servers in the order to ask them: as configured, but those
// that were late not long ago last.
func (f *forwarder) order(servers []Upstream) []Upstream {
	now := time.Now()
	ordered := make([]Upstream, 0, len(servers))
	var last []Upstream
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range servers {
		if until, ok := f.late[u.Addr]; ok && now.Before(until) {
			last = append(last, u)
		} else {
			ordered = append(ordered, u)
		}
	}
	return append(ordered, last...)
}

// distrust makes a server go last for a while; trust ends that.
func (f *forwarder) distrust(server netip.AddrPort, d time.Duration) {
	f.mu.Lock()
	f.late[server] = time.Now().Add(d)
	f.mu.Unlock()
}

func (f *forwarder) trust(server netip.AddrPort) {
	f.mu.Lock()
	delete(f.late, server)
	f.mu.Unlock()
}

// retain forgets the servers that are not in the list any more.
func (f *forwarder) retain(servers []Upstream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for addr := range f.late {
		kept := false
		for _, u := range servers {
			kept = kept || u.Addr == addr
		}
		if !kept {
			delete(f.late, addr)
		}
	}
}

// exchange asks the servers and returns the first good answer, or nil if there
// is none. Each server has a head start over the next; one that fails gives
// its turn up at once.
func (f *forwarder) exchange(ctx context.Context, j job) []byte {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := race{forwarder: f, job: j, servers: f.order(j.view.upstreams), started: make([]time.Time, 0, maxUpstreams)}
	r.results = make(chan result, len(r.servers))
	r.launch(ctx)
	next := time.NewTimer(j.view.limits.HeadStart)
	defer next.Stop()
	for r.running > 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
			r.launch(ctx)
			next.Reset(j.view.limits.HeadStart)
		case res := <-r.results:
			r.running--
			if res.answer != nil {
				r.won(res)
				return res.answer
			}
			if res.late {
				f.distrust(r.servers[res.index].Addr, j.view.limits.Distrust)
			}
			r.started[res.index] = time.Time{}
			r.launch(ctx)
			next.Reset(j.view.limits.HeadStart)
		}
	}
	return nil
}

// race is one question put to several servers.
type race struct {
	forwarder *forwarder
	job       job
	servers   []Upstream  // in the order of their turns
	started   []time.Time // of those whose turn came; zero when they have failed
	running   int
	results   chan result // buffered for all servers: nobody is left behind blocked
}

type result struct {
	index  int
	answer []byte // nil: failed
	late   bool   // failed by silence
}

// launch gives the next server its turn, if there is one.
func (r *race) launch(ctx context.Context) {
	i := len(r.started)
	if i == len(r.servers) {
		return
	}
	r.started = append(r.started, time.Now())
	r.running++
	server := r.servers[i]
	r.forwarder.resolver.done.Add(1)
	go func() {
		defer r.forwarder.resolver.done.Done()
		answer, late := server.ask(ctx, r.job, r.forwarder.resolver)
		r.results <- result{i, answer, late}
	}()
}

// won records the health that the race showed: a server still silent after its
// head start was late, even if it might have answered in the end.
func (r *race) won(res result) {
	limits := r.job.view.limits
	r.forwarder.trust(r.servers[res.index].Addr)
	for i, since := range r.started[:res.index] {
		if !since.IsZero() && time.Since(since) >= limits.HeadStart {
			r.forwarder.distrust(r.servers[i].Addr, limits.Distrust)
		}
	}
}
