package store

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/linkspan/linkspan"
)

// quarantine is the bucket for rows that cannot be read, keyed table/key.
const quarantine = "quarantine"

var (
	metaBucket = []byte("meta")
	epochKey   = []byte("epoch")
)

// load fills the tables: volatile rows of the same epoch first, durable ones
// where there is none.
func (s *Store) load(o Options) (fresh bool, err error) {
	kept, err := s.sameEpoch(o.Epoch)
	if err != nil {
		return false, err
	}
	complain := o.Quarantine
	if complain == nil {
		complain = func(error) {}
	}
	if !kept {
		return true, s.loadFile(s.durable, earlierLife, complain)
	}
	if err := s.loadFile(s.volatile, volatileFile, complain); err != nil {
		return false, err
	}
	return false, s.loadFile(s.durable, sameLife, complain)
}

// origin is where a row that is loaded comes from.
type origin int

const (
	volatileFile origin = iota
	sameLife            // the durable file; the volatile one has been read
	earlierLife         // the durable file; there is no other
)

// sameEpoch tells whether the volatile file belongs to this life of the kernel
// state, and empties it if not.
func (s *Store) sameEpoch(epoch string) (bool, error) {
	same := false
	err := s.volatile.Update(func(tx *bolt.Tx) error {
		if meta := tx.Bucket(metaBucket); meta != nil && string(meta.Get(epochKey)) == epoch {
			same = true
			return nil
		}
		var stale [][]byte
		err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
			stale = append(stale, append([]byte(nil), name...))
			return nil
		})
		if err != nil {
			return err
		}
		for _, name := range stale {
			if err = tx.DeleteBucket(name); err != nil {
				return err
			}
		}
		meta, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		return meta.Put(epochKey, []byte(epoch))
	})
	if err != nil {
		return false, fmt.Errorf("reading the store's epoch: %w", err)
	}
	return same, nil
}

func (s *Store) loadFile(db *bolt.DB, from origin, complain func(error)) error {
	var bad []write
	err := db.View(func(tx *bolt.Tx) error {
		for _, t := range s.all {
			bucket := tx.Bucket([]byte(t.title()))
			if bucket == nil {
				continue
			}
			err := bucket.ForEach(func(key, data []byte) error {
				if err := t.load(linkspan.ID(key), data, from); err != nil {
					complain(fmt.Errorf("setting a row aside (see bucket %s of %s): %w", quarantine, db.Path(), err))
					bad = append(bad, write{t.title(), linkspan.ID(key), append([]byte(nil), data...)})
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading %s: %w", db.Path(), err)
	}
	if len(bad) == 0 {
		return nil
	}
	return db.Update(func(tx *bolt.Tx) error {
		for _, w := range bad {
			aside := write{quarantine, linkspan.ID(w.table) + "/" + w.key, w.data}
			if err := apply(tx, []write{aside, {w.table, w.key, nil}}); err != nil {
				return err
			}
		}
		return nil
	})
}
