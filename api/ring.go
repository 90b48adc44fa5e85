package api

import (
	"context"
	"sync"
)

// kept is how many things a ring remembers: for clients that ask for the past,
// and for watchers that are slow.
const kept = 1024

// ring is what happened lately. Whoever reports something adds it and goes on;
// watchers read the ring each at their own pace, so that neither their number
// nor their slowness costs a verb anything. A watcher that falls behind by more
// than the ring holds is dropped.
//
// Safe for concurrent use.
type ring[T any] struct {
	mu      sync.Mutex // guards what follows; held for moments only
	slots   [kept]T
	next    uint64        // number of the thing to come; its slot is this modulo kept
	changed chan struct{} // closed and replaced at each addition
}

func newRing[T any]() *ring[T] { return &ring[T]{changed: make(chan struct{})} }

func (r *ring[T]) add(thing T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slots[r.next%kept] = thing
	r.next++
	close(r.changed)
	r.changed = make(chan struct{})
}

// position returns the number of the thing to come.
func (r *ring[T]) position() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// oldest returns the number of the oldest thing that is remembered.
func (r *ring[T]) oldest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(r.next, kept) - kept
}

// from returns the things from a number on, and a channel that is closed when
// there are more. It is not ok if some of them are forgotten already.
func (r *ring[T]) from(at uint64) (batch []T, changed <-chan struct{}, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at+kept < r.next {
		return nil, nil, false
	}
	for ; at < r.next; at++ {
		batch = append(batch, r.slots[at%kept])
	}
	return batch, r.changed, true
}

// follow calls send with all things from a number on, until the context ends,
// send fails, or the watcher is too slow.
func (r *ring[T]) follow(ctx context.Context, at uint64, send func([]T) error) error {
	for {
		batch, changed, ok := r.from(at)
		if !ok {
			return nil
		}
		at += uint64(len(batch))
		if len(batch) > 0 {
			if err := send(batch); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
