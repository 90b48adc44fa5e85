package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

type place struct{ data, exec string }

func newPlace(t *testing.T) place {
	dir := t.TempDir()
	return place{filepath.Join(dir, "data"), filepath.Join(dir, "exec")}
}

func (p place) open(t *testing.T, epoch string) (*Store, bool) {
	t.Helper()
	s, fresh, err := Open(Options{DataRoot: p.data, ExecRoot: p.exec, Epoch: epoch, Codec: op.NewCodec()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, fresh
}

func put(name string, phase Phase) func(Tables) error {
	return func(t Tables) error {
		t.Networks.Put(linkspan.ID(name), Row[network.Network]{
			Value: network.Network{ID: linkspan.ID(name), Name: name},
			Phase: phase,
			Plan:  op.Plan{{Why: "a switch", Op: op.AddBridge{Name: "br-" + name, MAC: "02:00:00:00:00:01"}}},
		})
		return nil
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// state is what a store knows of networks, for comparison.
func state(s *Store) map[string]string {
	found := make(map[string]string)
	s.View(func(t Tables) {
		for id, row := range t.Networks.All() {
			found[string(id)] = fmt.Sprintf("%s, %d steps", row.Phase, len(row.Plan))
		}
	})
	return found
}

func TestLifetimes(t *testing.T) {
	p := newPlace(t)
	s, fresh := p.open(t, "boot 1")
	if !fresh {
		t.Error("a new store has volatile rows")
	}
	must(t, s.Update(put("ready", Ready)))
	must(t, s.Update(put("creating", Creating)))
	must(t, s.Update(put("deleting", Ready)))
	must(t, s.Update(put("deleting", Deleting)))
	must(t, s.Update(func(t Tables) error {
		t.Endpoints.Put("e", Row[endpoint.Endpoint]{Phase: Ready})
		return nil
	}))
	must(t, s.Close())

	s, fresh = p.open(t, "boot 1")
	if fresh {
		t.Error("the same boot has lost its volatile rows")
	}
	want := map[string]string{"ready": "ready, 1 steps", "creating": "creating, 1 steps", "deleting": "deleting, 1 steps"}
	if diff := cmp.Diff(want, state(s)); diff != "" {
		t.Errorf("same boot (-want +got):\n%s", diff)
	}
	must(t, s.Close())

	s, fresh = p.open(t, "boot 2")
	if !fresh {
		t.Error("another boot has kept volatile rows")
	}
	if diff := cmp.Diff(map[string]string{"ready": "ready, 0 steps"}, state(s)); diff != "" {
		t.Errorf("after a boot (-want +got):\n%s", diff)
	}
	s.View(func(tables Tables) {
		for id := range tables.Endpoints.All() {
			t.Errorf("endpoint %s outlived the boot", id)
		}
	})
}

// asked is an op that a program outside carries out.
type asked struct{ op.AddNetns }

func (asked) Party() string { return "keeper" }

// What is owed to a program outlives a boot, for as long as the row did; what the
// kernel had is gone.
func TestDebtsOutliveABoot(t *testing.T) {
	p := newPlace(t)
	codec := op.NewCodec(op.Kinds{"asked": asked{}})
	open := func(epoch string) *Store {
		t.Helper()
		s, _, err := Open(Options{DataRoot: p.data, ExecRoot: p.exec, Epoch: epoch, Codec: codec, Quarantine: func(err error) { t.Error(err) }})
		must(t, err)
		return s
	}
	plan := op.Plan{{Why: "a", Op: op.AddNetns{Name: "a"}}, {Why: "b", Op: asked{op.AddNetns{Name: "b"}}}}
	s := open("boot 1")
	must(t, s.Update(func(t Tables) error {
		t.Endpoints.Put("live", Row[endpoint.Endpoint]{Value: endpoint.Endpoint{Name: "web"}, Phase: Ready, Plan: plan})
		t.Endpoints.Put("gone", Row[endpoint.Endpoint]{Phase: Ready, Plan: plan})
		t.Endpoints.Put("plain", Row[endpoint.Endpoint]{Phase: Ready, Plan: plan[:1]})
		t.Networks.Put("ready", Row[network.Network]{Phase: Ready, Plan: plan})
		t.Networks.Put("leaving", Row[network.Network]{Phase: Ready, Plan: plan})
		t.Gateways.Put("box", Row[Gateways]{Phase: Ready, Plan: plan})
		return nil
	}))
	must(t, s.Update(func(t Tables) error {
		t.Endpoints.Delete("gone")
		t.Networks.SetPhase("leaving", Deleting)
		return nil
	}))
	must(t, s.Close())
	for boot := range 3 { // it is not forgotten by booting once more
		s = open(fmt.Sprintf("later boot %d", boot))
		want := map[string]string{"live": "deleting, 1 steps", "ready": "ready, 0 steps", "leaving": "deleting, 1 steps"}
		found := state(s)
		s.View(func(tables Tables) {
			for id, row := range tables.Endpoints.All() {
				found[string(id)] = fmt.Sprintf("%s, %d steps", row.Phase, len(row.Plan))
				if row.Value.Name != "web" || row.Plan[0].Why != "b" {
					t.Errorf("what is left of %s: %+v", id, row)
				}
			}
			for id := range tables.Gateways.All() {
				t.Errorf("the gateways of %s outlived the boot", id)
			}
		})
		if diff := cmp.Diff(want, found); diff != "" {
			t.Errorf("after a boot (-want +got):\n%s", diff)
		}
		must(t, s.Close())
	}
	s = open("last boot")
	must(t, s.Update(func(t Tables) error {
		t.Endpoints.Delete("live")
		t.Networks.Delete("leaving")
		return nil
	}))
	must(t, s.Close())
	s = open("after it")
	if found := state(s); len(found) != 1 {
		t.Errorf("what is paid came back: %v", found)
	}
	must(t, s.Close())
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	s, _ := newPlace(t).open(t, "boot")
	must(t, s.Update(put("old", Ready)))
	failure := errors.New("no")
	err := s.Update(func(tables Tables) error {
		tables.Networks.Delete("old")
		must(t, put("new", Ready)(tables))
		if _, seen := tables.Networks.Get("new"); !seen {
			t.Error("an update does not see its own change")
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(map[string]string{"old": "ready, 1 steps"}, state(s)); diff != "" {
		t.Errorf("after a failed update (-want +got):\n%s", diff)
	}
}

func TestUnknownOpIsRefusedWhole(t *testing.T) {
	s, _ := newPlace(t).open(t, "boot")
	err := s.Update(func(tables Tables) error {
		must(t, put("good", Ready)(tables))
		tables.Networks.Put("bad", Row[network.Network]{Plan: op.Plan{{Op: nil}}})
		return nil
	})
	if err == nil {
		t.Fatal("a plan that cannot be stored was accepted")
	}
	if len(state(s)) != 0 {
		t.Errorf("half an update was kept: %v", state(s))
	}
}

func TestBadRowIsSetAside(t *testing.T) {
	p := newPlace(t)
	s, _ := p.open(t, "boot")
	must(t, s.Update(put("good", Ready)))
	must(t, s.volatile.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("network")).Put([]byte("bad"), []byte(`{"value":{},"plan":[{"kind":"from the future"}]}`))
	}))
	must(t, s.Close())
	var complaints []error
	s, _, err := Open(Options{
		DataRoot: p.data, ExecRoot: p.exec, Epoch: "boot", Codec: op.NewCodec(),
		Quarantine: func(err error) { complaints = append(complaints, err) },
	})
	must(t, err)
	defer s.Close()
	if len(complaints) != 1 {
		t.Errorf("complaints: %v", complaints)
	}
	if diff := cmp.Diff(map[string]string{"good": "ready, 1 steps"}, state(s)); diff != "" {
		t.Errorf("beside a bad row (-want +got):\n%s", diff)
	}
	must(t, s.volatile.View(func(tx *bolt.Tx) error {
		if tx.Bucket([]byte(quarantine)).Get([]byte("network/bad")) == nil {
			t.Error("the bad row is not in quarantine")
		}
		return nil
	}))
}

func TestSecondDaemonIsRefused(t *testing.T) {
	p := newPlace(t)
	p.open(t, "boot")
	_, _, err := Open(Options{DataRoot: p.data, ExecRoot: p.exec, Epoch: "boot", Codec: op.NewCodec()})
	if !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("second open: %v", err)
	}
}

// Updates in parallel reach the disk in their order, and share transactions.
func TestUpdatesInParallel(t *testing.T) {
	p := newPlace(t)
	s, _ := p.open(t, "boot")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			name := fmt.Sprint(i)
			if err := s.Update(put(name, Ready)); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				if err := s.Update(put(name, Deleting)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	must(t, s.Close())
	s, _ = p.open(t, "another boot")
	if n := len(state(s)); n != 25 {
		t.Errorf("%d networks are durable, not 25", n)
	}
}

func BenchmarkReserveAndCommit(b *testing.B) {
	dir := b.TempDir()
	s, _, err := Open(Options{DataRoot: filepath.Join(dir, "data"), ExecRoot: filepath.Join(dir, "exec"), Epoch: "boot", Codec: op.NewCodec()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if err := s.Defer(put("n", Creating)); err != nil {
			b.Fatal(err)
		}
		if err := s.Update(put("n", Ready)); err != nil {
			b.Fatal(err)
		}
	}
}
