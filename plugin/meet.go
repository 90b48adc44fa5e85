package plugin

import (
	"context"
	"maps"
)

// A plugin that was started again may know nothing of what it was told before.
// Which process answers shows when a connection is made, before anything is sent
// (see peerOf). So what the present process was told is noted here, and before it
// is told anything else, whoever holds things of it may say what it must hear
// again.

// Heard tells whether the process that answers now was told of something, as
// noted with Note. One that has just been started was told of nothing.
func (l *Line) Heard(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard[what]
}

// Missed tells whether an earlier process of this plugin was told of something,
// and the one that answers now was not: it may not know of it.
func (l *Line) Missed(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.missed[what]
}

// Note remembers that the plugin was told of something.
func (l *Line) Note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.heard == nil {
		l.heard = make(map[string]bool)
	}
	l.heard[what] = true
	delete(l.missed, what)
}

// Forget is the reverse of Note.
func (l *Line) Forget(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.heard, what)
	delete(l.missed, what)
}

// stranger notes that another process may answer from now on. It is called with
// the lock held.
func (l *Line) stranger(peer string) {
	if l.missed == nil {
		l.missed = make(map[string]bool)
	}
	maps.Copy(l.missed, l.heard)
	l.peer, l.heard, l.nodes = peer, nil, nil
	l.process++
}

// met is the key in a context of the line whose plugin is being met.
type met struct{}

// meeting tells whether a call is part of meeting the plugin, which other calls
// wait for.
func (l *Line) meeting(ctx context.Context) bool { return ctx.Value(met{}) == l }

// meet has whoever holds things of the plugin say what it must hear before any
// other call.
func (l *Line) meet(asking chan struct{}) {
	defer l.answered(asking)
	ctx, cancel := context.WithTimeoutCause(context.WithValue(l.directory.life, met{}, l), l.directory.o.Deadline, errSilent)
	defer cancel()
	l.mu.Lock()
	process := l.process
	l.mu.Unlock()
	l.directory.o.Meet(ctx, l.name)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.met = process
}
