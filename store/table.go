package store

import (
	"encoding/json"
	"fmt"
	"iter"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/op"
)

// Phase says how far a row has come.
type Phase string

// The phases of a row.
const (
	Creating Phase = "creating"
	Ready    Phase = "ready"
	Deleting Phase = "deleting"
)

// Row is a record, its phase, and the plan that makes it in the kernel, whole,
// from before its first step until after the last undo.
type Row[T any] struct {
	Value T
	Phase Phase
	Plan  op.Plan

	// Was, of a row that is being changed in place, is what it was before: the
	// kernel is at one of the two, or between them. What survives a reboot is Was.
	Was *Version[T]
}

// Version is a record and the plan that makes it.
type Version[T any] struct {
	Value T
	Plan  op.Plan
}

// Table holds the rows of one kind. Use it within View or Update only.
type Table[T any] struct {
	name    string
	codec   *op.Codec
	durable func(Row[T]) bool // whether a row must survive a reboot
	owes    bool              // whether what rows owe to programs must
	rows    map[linkspan.ID]Row[T]
	changes map[linkspan.ID]*Row[T] // of the running Update; nil: deleted
	indexes []indexed[T]            // over rows and changes, as Get sees them
}

func newTable[T any](name string, codec *op.Codec, durable func(Row[T]) bool) *Table[T] {
	return &Table[T]{name: name, codec: codec, durable: durable, rows: make(map[linkspan.ID]Row[T]), changes: make(map[linkspan.ID]*Row[T])}
}

// Get returns a row.
func (t *Table[T]) Get(id linkspan.ID) (Row[T], bool) {
	if row, changed := t.changes[id]; changed {
		if row == nil {
			return Row[T]{}, false
		}
		return *row, true
	}
	row, ok := t.rows[id]
	return row, ok
}

// All iterates over the rows, in no particular order.
func (t *Table[T]) All() iter.Seq2[linkspan.ID, Row[T]] {
	return func(yield func(linkspan.ID, Row[T]) bool) {
		for id, row := range t.rows {
			if _, changed := t.changes[id]; !changed && !yield(id, row) {
				return
			}
		}
		for id, row := range t.changes {
			if row != nil && !yield(id, *row) {
				return
			}
		}
	}
}

// Put adds or replaces a row. The caller must not change afterwards what the
// row refers to.
func (t *Table[T]) Put(id linkspan.ID, row Row[T]) { t.change(id, &row) }

// Delete removes a row, if it is there.
func (t *Table[T]) Delete(id linkspan.ID) { t.change(id, nil) }

func (t *Table[T]) change(id linkspan.ID, row *Row[T]) {
	if old, ok := t.Get(id); ok {
		t.reindex(id, &old, row)
	} else {
		t.reindex(id, nil, row)
	}
	t.changes[id] = row
}

// reindex tells the indexes that one row took the place of another; nil: none.
func (t *Table[T]) reindex(id linkspan.ID, old, fresh *Row[T]) {
	for _, index := range t.indexes {
		if old != nil {
			index.remove(id, *old)
		}
		if fresh != nil {
			index.add(id, *fresh)
		}
	}
}

// SetPhase changes the phase of a row, if it is there.
func (t *Table[T]) SetPhase(id linkspan.ID, phase Phase) {
	if row, ok := t.Get(id); ok {
		row.Phase = phase
		t.Put(id, row)
	}
}

// write is one change to a file: nil data deletes.
type write struct {
	table string
	key   linkspan.ID
	data  []byte
}

type storedRow struct {
	Value json.RawMessage `json:"value"`
	Phase Phase           `json:"phase"`
	Plan  json.RawMessage `json:"plan,omitempty"`
	Was   *storedRow      `json:"was,omitempty"` // has no phase of its own
}

// table is what the Store does with each of its tables.
type table interface {
	pending() (volatile, durable []write, err error)
	settle(keep bool)
	load(key linkspan.ID, data []byte, from origin) error
	title() string
}

func (t *Table[T]) title() string { return t.name }

// pending returns what the running Update writes.
func (t *Table[T]) pending() (volatile, durable []write, err error) {
	for id, row := range t.changes {
		if row == nil {
			volatile = append(volatile, write{t.name, id, nil})
			if old, existed := t.rows[id]; existed && t.lasts(old) {
				durable = append(durable, write{t.name, id, nil})
			}
			continue
		}
		stored, err := t.encode(*row)
		if err != nil {
			return nil, nil, err
		}
		data, err := json.Marshal(stored)
		if err != nil {
			return nil, nil, fmt.Errorf("storing %s %s: %w", t.name, id.Short(), err)
		}
		volatile = append(volatile, write{t.name, id, data})
		if row.Was != nil && row.Phase == Ready {
			continue // until the change is over, the durable row stays as it is
		}
		lasting, err := t.lasting(*row, stored)
		if err != nil {
			return nil, nil, err
		}
		old, existed := t.rows[id]
		if lasting != nil || existed && t.lasts(old) {
			durable = append(durable, write{t.name, id, lasting})
		}
	}
	return volatile, durable, nil
}

// debt is what survives a reboot of a row that does not: the steps of its plan
// that are owed to programs, which may have kept what the kernel has lost.
type debt struct {
	Owed *storedRow `json:"owed"`
}

// lasts tells whether anything of a row survives a reboot.
func (t *Table[T]) lasts(row Row[T]) bool { return t.durable(row) || len(t.owed(row)) > 0 }

func (t *Table[T]) owed(row Row[T]) op.Plan {
	if !t.owes {
		return nil
	}
	return op.Owed(row.Plan)
}

// lasting returns what of a row survives a reboot, nil if nothing does.
func (t *Table[T]) lasting(row Row[T], stored storedRow) ([]byte, error) {
	if t.durable(row) {
		return stored.Value, nil
	}
	owed := t.owed(row)
	if len(owed) == 0 {
		return nil, nil
	}
	plan, err := t.codec.Marshal(owed)
	if err != nil {
		return nil, fmt.Errorf("storing %s: %w", t.name, err)
	}
	return json.Marshal(debt{&storedRow{Value: stored.Value, Phase: Deleting, Plan: plan}})
}

func (t *Table[T]) encode(row Row[T]) (storedRow, error) {
	value, err := json.Marshal(row.Value)
	if err != nil {
		return storedRow{}, fmt.Errorf("storing %s: %w", t.name, err)
	}
	stored := storedRow{Value: value, Phase: row.Phase}
	if row.Plan != nil {
		if stored.Plan, err = t.codec.Marshal(row.Plan); err != nil {
			return storedRow{}, fmt.Errorf("storing %s: %w", t.name, err)
		}
	}
	if row.Was != nil {
		was, err := t.encode(Row[T]{Value: row.Was.Value, Plan: row.Was.Plan})
		if err != nil {
			return storedRow{}, err
		}
		stored.Was = &was
	}
	return stored, nil
}

// settle ends an Update: its changes become rows, or are forgotten.
func (t *Table[T]) settle(keep bool) {
	for id, row := range t.changes {
		switch {
		case !keep:
			if old, existed := t.rows[id]; existed {
				t.reindex(id, row, &old)
			} else {
				t.reindex(id, row, nil)
			}
		case row == nil:
			delete(t.rows, id)
		default:
			t.rows[id] = *row
		}
	}
	clear(t.changes)
}

// keep makes what was loaded a row.
func (t *Table[T]) keep(id linkspan.ID, row Row[T]) {
	t.rows[id] = row
	t.reindex(id, nil, &row)
}

// load takes a row from a file. What comes from the durable one has no plan,
// since that died with the kernel state, or is on its way out and has nothing but
// what is owed to programs.
func (t *Table[T]) load(key linkspan.ID, data []byte, from origin) error {
	row := Row[T]{Phase: Ready}
	if from != volatileFile {
		if _, known := t.rows[key]; known {
			return nil // the volatile row knows more
		}
		var left debt
		err := json.Unmarshal(data, &left)
		switch {
		case err == nil && left.Owed != nil && from == sameLife:
			return nil // it is paid: the volatile file would have the row
		case err == nil && left.Owed != nil:
			row, err = t.decode(*left.Owed)
		case err == nil:
			err = json.Unmarshal(data, &row.Value)
		}
		if err != nil {
			return fmt.Errorf("reading %s %s: %w", t.name, key.Short(), err)
		}
		t.keep(key, row)
		return nil
	}
	var stored storedRow
	err := json.Unmarshal(data, &stored)
	if err == nil {
		row, err = t.decode(stored)
	}
	if err != nil {
		return fmt.Errorf("reading %s %s: %w", t.name, key.Short(), err)
	}
	t.keep(key, row)
	return nil
}

func (t *Table[T]) decode(stored storedRow) (row Row[T], err error) {
	row.Phase = stored.Phase
	if err = json.Unmarshal(stored.Value, &row.Value); err != nil {
		return row, err
	}
	if stored.Plan != nil {
		if row.Plan, err = t.codec.Unmarshal(stored.Plan); err != nil {
			return row, err
		}
	}
	if stored.Was != nil {
		was, err := t.decode(*stored.Was)
		if err != nil {
			return row, err
		}
		row.Was = &Version[T]{was.Value, was.Plan}
	}
	return row, nil
}
