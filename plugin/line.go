package plugin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/plugin/wire"
)

// errOther is no kind that a client could act on.
var errOther = errors.New("unexpected")

// About is what a plugin says of itself.
type About struct {
	Place      Place
	Implements []string
	Network    wire.Capabilities     // if it implements wire.NetworkDriver
	IPAM       wire.IpamCapabilities // if it implements wire.IpamDriver
}

// Line is the line to one plugin. It is safe for concurrent use.
type Line struct {
	directory *Directory
	name      string

	mu      sync.Mutex
	wire    *transport         // to where it was last found, or nil
	about   *About             // nil: to be asked
	asking  chan struct{}      // closed when the question under way is answered
	used    bool               // somebody depends on it: worth asking again
	cut     error              // why no call is let through, or nil
	since   time.Time          // of cut
	peer    string             // the process that answered last
	process int                // counts the processes, as far as they can be told apart
	met     int                // the process that Options.Meet was called for
	heard   map[string]bool    // what this process was told
	missed  map[string]bool    // what one before it was told, and this one was not
	another bool               // it is not the one that was there before, and nobody was told yet
	nodes   map[wire.Node]bool // of the cluster, that this process was told of

	telling sync.Mutex // held by who tells it of nodes; taken before mu
}

// Name returns the plugin's name.
func (l *Line) Name() string { return l.name }

// State returns nil unless the line is cut.
func (l *Line) State() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusal()
}

func (l *Line) refusal() error {
	if l.cut == nil {
		return nil
	}
	return linkspan.Errorf(linkspan.ErrUnavailable, "plugin %q is away since %s: %w (see: linkspan plugin inspect %s)", l.name, l.since.Format(time.TimeOnly), l.cut, l.name)
}

func (l *Line) wanted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used
}

func (l *Line) url() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wire == nil {
		return ""
	}
	return l.wire.place.URL
}

// Known returns what the plugin said of itself when it was last asked. It asks
// nobody.
func (l *Line) Known() (About, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.about == nil {
		return About{}, false
	}
	return *l.about, true
}

// Call sends a message and reads the answer into answer, unless that is nil. An
// error is a *Refusal or a *Failure, or says that the line is cut.
func (l *Line) Call(ctx context.Context, method string, message, answer any) error {
	return l.call(ctx, l.directory.o.Deadline, method, message, answer)
}

// Brief is Call with the short deadline: for what takes something back, or asks
// for a state.
func (l *Line) Brief(ctx context.Context, method string, message, answer any) error {
	return l.call(ctx, l.directory.o.Brief, method, message, answer)
}

func (l *Line) call(ctx context.Context, deadline time.Duration, method string, message, answer any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, errSilent)
	defer cancel()
	patience := time.Now().Add(l.directory.o.Patience)
	l.mu.Lock()
	l.used = true
	l.mu.Unlock()
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		if _, err := l.learn(ctx, patience); err != nil {
			return err
		}
		err := l.exchange(ctx, method, message, answer)
		var reach unreached
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &reach):
			return l.failed(ctx, method, true, err)
		case errors.Is(err, errAnother) && !l.meeting(ctx):
			continue // it was started again: get to know it first
		case errors.Is(err, unix.EAGAIN):
			patience = time.Now().Add(2 * wait) // it listens, but its queue is full
		default:
			l.lose()
		}
		if time.Now().Add(wait).After(patience) || !sleep(ctx, wait) {
			return l.failed(ctx, method, false, err)
		}
	}
}

// lose forgets where the plugin listened: it may come back somewhere else. One
// that cannot be told from another process by its socket may be another then.
func (l *Line) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wire, l.about = nil, nil
	if l.peer == "" {
		l.stranger("")
	}
}

// failed words a failure, and cuts the line if the plugin is to blame.
func (l *Line) failed(ctx context.Context, method string, sent bool, err error) error {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return err
	}
	failure := &Failure{Plugin: l.name, Method: method, Sent: sent, Err: causeOf(ctx, err)}
	var garbage garbled
	failure.Lives = sent && hungUp(err) && l.lives(ctx)
	if !errors.As(err, &garbage) && !failure.Lives && (ctx.Err() == nil || errors.Is(context.Cause(ctx), errSilent)) {
		l.hangUp(failure.Err)
	}
	return failure
}

// lives tells whether the process that hung up on a call answers still: then only
// that call broke down.
func (l *Line) lives(ctx context.Context) bool {
	ctx, cancel := context.WithTimeoutCause(ctx, l.directory.o.Brief, errSilent)
	defer cancel()
	err := l.exchange(ctx, activate, nil, nil)
	return err == nil || errors.As(err, new(*Refusal))
}

// hangUp cuts the line, and has it asked from now on until somebody answers.
func (l *Line) hangUp(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut != nil {
		return
	}
	l.cut, l.since, l.about, l.wire = cause, time.Now(), nil, nil
	if l.peer == "" {
		l.stranger("")
	}
	l.directory.o.Logf("plugin %s is away: %v", l.name, cause)
	l.directory.background(l.redial)
}

// redial asks, ever less often, until there is an answer.
func (l *Line) redial() {
	ctx := l.directory.life
	for wait := 50 * time.Millisecond; sleep(ctx, wait) && l.State() != nil; wait = min(2*wait, 5*time.Second) {
		asked, cancel := context.WithTimeoutCause(ctx, l.directory.o.Brief, errSilent)
		about, err := l.ask(asked)
		cancel()
		l.mu.Lock()
		if err == nil && l.cut != nil {
			l.about, l.cut, l.another = &about, nil, false
			l.mu.Unlock()
			l.directory.o.Logf("plugin %s is back", l.name)
			l.tellNodes()
			l.directory.o.Up(l.name)
			return
		}
		l.mu.Unlock()
	}
}

// About makes the plugin's acquaintance, if that was not done before.
func (l *Line) About(ctx context.Context) (About, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.directory.o.Deadline, errSilent)
	defer cancel()
	return l.learn(ctx, time.Now().Add(l.directory.o.Patience))
}

// Glance is About without patience, and without consequences: the line is not
// cut if there is no answer.
func (l *Line) Glance(ctx context.Context) (About, error) {
	if about, known := l.Known(); known {
		return about, l.State()
	}
	if err := l.State(); err != nil {
		return About{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.directory.o.Brief, errSilent)
	defer cancel()
	about, err := l.ask(ctx)
	if err != nil {
		return about, fmt.Errorf("asking plugin %q what it is: %w", l.name, causeOf(ctx, err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.about = &about
	return about, nil
}

// learn returns what the plugin says of itself, once it was met. Of those that
// want to know, one asks and the others wait.
func (l *Line) learn(ctx context.Context, patience time.Time) (About, error) {
	for {
		l.mu.Lock()
		if err := l.refusal(); err != nil {
			l.mu.Unlock()
			return About{}, err
		}
		if l.about != nil && (l.met == l.process || l.meeting(ctx)) {
			about := *l.about
			l.mu.Unlock()
			return about, nil
		}
		if l.meeting(ctx) {
			l.mu.Unlock()
			return About{}, &Failure{Plugin: l.name, Method: activate, Err: errAnother}
		}
		asking := l.asking
		if asking == nil {
			asking = make(chan struct{})
			l.asking = asking
			known := l.about != nil
			l.mu.Unlock()
			if !known {
				if about, err := l.acquaint(ctx, patience); err != nil {
					l.answered(asking)
					return about, err
				}
			}
			l.directory.background(func() { l.meet(asking) })
		} else {
			l.mu.Unlock()
		}
		select {
		case <-asking:
		case <-ctx.Done():
			return About{}, &Failure{Plugin: l.name, Method: activate, Err: context.Cause(ctx)}
		}
	}
}

// answered lets in those that wait for a question's answer.
func (l *Line) answered(asking chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asking = nil
	close(asking)
}

// acquaint asks the plugin what it is, and notes the answer.
func (l *Line) acquaint(ctx context.Context, patience time.Time) (About, error) {
	about, err := l.introduce(ctx, patience)
	if err != nil {
		return about, err
	}
	l.mu.Lock()
	l.about = &about
	another := l.another
	l.another = false
	l.mu.Unlock()
	l.tellNodes()
	if another {
		l.directory.o.Up(l.name)
	}
	return about, nil
}

// introduce asks until there is an answer or no more patience. A plugin that
// nobody has used and that is nowhere is no failure of the plugin's.
func (l *Line) introduce(ctx context.Context, patience time.Time) (About, error) {
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		about, err := l.ask(ctx)
		if err == nil {
			return about, nil
		}
		missing := errors.Is(err, linkspan.ErrNotFound)
		if missing && !l.wanted() {
			return about, err
		}
		var reach unreached
		if !missing && !errors.As(err, &reach) {
			return about, l.failed(ctx, activate, false, err)
		}
		if time.Now().Add(wait).After(patience) || !sleep(ctx, wait) {
			return about, l.failed(ctx, activate, false, err)
		}
	}
}

// sleep returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
