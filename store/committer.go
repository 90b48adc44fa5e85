package store

import (
	"sync"

	bolt "go.etcd.io/bbolt"
)

// committer writes to the durable file in the order of the updates, one
// transaction, and so one fdatasync, for all that wait at that moment.
type committer struct {
	db *bolt.DB

	mu      sync.Mutex
	waiting *batch // not begun yet; nil: none
	turn    chan struct{}
}

// batch is what one transaction writes.
type batch struct {
	writes []write
	done   chan struct{}
	err    error // valid when done is closed
}

func (c *committer) init(db *bolt.DB) {
	c.db = db
	c.turn = make(chan struct{}, 1)
}

// queue adds writes to the next transaction and returns a function that waits
// until they are on the disk.
func (c *committer) queue(writes []write) (wait func() error) {
	if len(writes) == 0 {
		return func() error { return nil }
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == nil {
		c.waiting = &batch{done: make(chan struct{})}
		go c.commit(c.waiting)
	}
	b := c.waiting
	b.writes = append(b.writes, writes...)
	return func() error {
		<-b.done
		return b.err
	}
}

func (c *committer) commit(b *batch) {
	c.turn <- struct{}{} // one transaction at a time; latecomers join b meanwhile
	c.mu.Lock()
	c.waiting = nil
	c.mu.Unlock()
	b.err = c.db.Update(func(tx *bolt.Tx) error { return apply(tx, b.writes) })
	<-c.turn
	close(b.done)
}

// drain waits for everything queued so far.
func (c *committer) drain() {
	c.mu.Lock()
	b := c.waiting
	c.mu.Unlock()
	if b != nil {
		<-b.done
	}
	c.turn <- struct{}{}
	<-c.turn
}
