package store

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Tables are all rows that there are.
type Tables struct {
	Hosts     *Table[Host]              // the machine itself: one row, with ID HostID
	Networks  *Table[network.Network]   // durable
	Configs   *Table[Config]            // durable, by container; no plan
	Sandboxes *Table[sandbox.Sandbox]   // volatile, by sandbox
	Endpoints *Table[endpoint.Endpoint] // volatile, by endpoint
	Gateways  *Table[Gateways]          // volatile, by sandbox
	Cursors   *Table[Cursor]            // volatile, by network; no plan
	Ports     *Table[Ports]             // volatile, by sandbox

	By Indexes
}

// Host is the record of what the daemon changed about the machine as a whole.
type Host struct{}

// HostID is the key of the one row in Tables.Hosts.
const HostID linkspan.ID = "host"

// Gateways is the record of a sandbox's default routes: the endpoints that
// they leave by.
type Gateways struct{ IPv4, IPv6 linkspan.ID }

// Cursor is where the serial allocation of a network's addresses has come to:
// the addresses given last.
type Cursor struct {
	IPv4 netip.Addr `json:",omitzero"`
	IPv6 netip.Addr `json:",omitzero"`
}

// Ports is the record of what the firewall lets into a sandbox: what is published
// of it, with the bridges by which each family of addresses reaches it, and the
// ways of links.
type Ports struct {
	Ports            []sandbox.Port
	Bridge4, Bridge6 string `json:",omitempty"`
	Ways             []Way  `json:",omitempty"`
}

// Empty tells whether nothing is let in.
func (p Ports) Empty() bool { return len(p.Ports) == 0 && len(p.Ways) == 0 }

// Options say where a Store lives.
type Options struct {
	DataRoot string // durable
	ExecRoot string // volatile
	// Epoch names the life of the kernel state: another epoch (a boot, a new
	// network namespace) voids the volatile rows.
	Epoch string
	Codec *op.Codec
	// Quarantine is told of each row that cannot be read. The row is set aside
	// in a bucket of its own and the daemon goes on.
	Quarantine func(error)
}

// Store is the only owner of rows. It is safe for concurrent use.
type Store struct {
	volatile *bolt.DB
	durable  *bolt.DB

	mu     sync.RWMutex
	tables Tables
	all    []table

	disk committer
}

// Open opens or creates the two files. Only one process at a time can: another
// one is refused with kind ErrConflict. The second result tells whether the
// epoch is a new one, in which the volatile rows are void.
func Open(o Options) (*Store, bool, error) {
	durable, err := openFile(filepath.Join(o.DataRoot, "linkspan.db"), false)
	if err != nil {
		return nil, false, err
	}
	volatile, err := openFile(filepath.Join(o.ExecRoot, "live.db"), true)
	if err != nil {
		return nil, false, errors.Join(err, durable.Close())
	}
	s := &Store{volatile: volatile, durable: durable, tables: newTables(o.Codec)}
	s.disk.init(durable)
	t := s.tables
	s.all = []table{t.Hosts, t.Networks, t.Configs, t.Sandboxes, t.Endpoints, t.Gateways, t.Cursors, t.Ports}
	fresh, err := s.load(o)
	if err != nil {
		return nil, false, errors.Join(err, s.Close())
	}
	return s, fresh, nil
}

func newTables(codec *op.Codec) Tables {
	t := Tables{
		Hosts: newTable("host", codec, func(Row[Host]) bool { return false }),
		Networks: newTable("network", codec, func(r Row[network.Network]) bool {
			return r.Phase == Ready
		}),
		Configs: newTable("config", codec, func(r Row[Config]) bool {
			return !r.Value.Volatile
		}),
		Sandboxes: newTable("sandbox", codec, func(Row[sandbox.Sandbox]) bool { return false }),
		Endpoints: newTable("endpoint", codec, func(Row[endpoint.Endpoint]) bool { return false }),
		Gateways:  newTable("gateways", codec, func(Row[Gateways]) bool { return false }),
		Cursors:   newTable("cursor", codec, func(Row[Cursor]) bool { return false }),
		Ports:     newTable("ports", codec, func(Row[Ports]) bool { return false }),
	}
	t.Networks.owes, t.Endpoints.owes = true, true
	t.By = newIndexes(t)
	return t
}

func openFile(path string, volatile bool) (*bolt.DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:        200 * time.Millisecond,
		NoSync:         volatile,
		NoGrowSync:     volatile,
		NoFreelistSync: true,
		FreelistType:   bolt.FreelistMapType,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, linkspan.Errorf(linkspan.ErrConflict, "another daemon holds %s (see: fuser -v %s)", path, path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	}
	return db, nil
}

// Close waits for what is on its way to the disk and closes both files.
func (s *Store) Close() error {
	s.disk.drain()
	return errors.Join(s.volatile.Close(), s.durable.Close())
}

// View runs fn on the rows as they are. fn must not keep the tables, call the
// Store, or block.
func (s *Store) View(fn func(Tables)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	fn(s.tables)
}

// Update runs fn on the rows and keeps all its changes if it returns nil, else
// none. fn must be pure but for those changes: no I/O, no lock, no blocking.
// When Update returns, changes to durable rows are on the disk.
func (s *Store) Update(fn func(Tables) error) error {
	wait, err := s.update(fn)
	if err != nil {
		return err
	}
	return wait()
}

// Defer is Update without the wait for the disk: for changes that may be lost
// with the machine's power, together with the kernel state that they describe.
func (s *Store) Defer(fn func(Tables) error) error {
	_, err := s.update(fn)
	return err
}

func (s *Store) update(fn func(Tables) error) (wait func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = fn(s.tables)
	var volatile, durable []write
	for _, t := range s.all {
		if err != nil {
			break
		}
		var v, d []write
		v, d, err = t.pending()
		volatile, durable = append(volatile, v...), append(durable, d...)
	}
	if err == nil && len(volatile) > 0 {
		err = s.volatile.Update(func(tx *bolt.Tx) error { return apply(tx, volatile) })
	}
	for _, t := range s.all {
		t.settle(err == nil)
	}
	if err != nil {
		return nil, err
	}
	return s.disk.queue(durable), nil
}

func apply(tx *bolt.Tx, writes []write) error {
	for _, w := range writes {
		bucket, err := tx.CreateBucketIfNotExists([]byte(w.table))
		if err != nil {
			return fmt.Errorf("storing in %s: %w", w.table, err)
		}
		if w.data == nil {
			err = bucket.Delete([]byte(w.key))
		} else {
			err = bucket.Put([]byte(w.key), w.data)
		}
		if err != nil {
			return fmt.Errorf("storing %s %s: %w", w.table, w.key.Short(), err)
		}
	}
	return nil
}
