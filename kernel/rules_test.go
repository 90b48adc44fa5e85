package kernel_test

import (
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/linkspan/linkspan/internal/nstest"
)

// TestFollowRules hears what others do to a table, and nothing of what the host
// itself does there, or of other tables.
func TestFollowRules(t *testing.T) {
	m := nstest.New(t)
	h := m.Host()
	table := &nftables.Table{Name: "mine", Family: nftables.TableFamilyINet}
	transact := func(fn func(*nftables.Conn)) {
		t.Helper()
		if err := h.Transact("", func(conn *nftables.Conn) error { fn(conn); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	changes, err := h.FollowRules(t.Context(), []string{"mine"})
	if err != nil {
		t.Fatal(err)
	}
	transact(func(conn *nftables.Conn) { conn.AddTable(table) })
	m.Sh(t, "nft add table inet theirs; nft delete table inet theirs")
	m.Sh(t, "nft add chain inet mine c")
	select {
	case <-changes:
	case <-time.After(20 * time.Second):
		t.Fatal("a change by somebody else is not reported")
	}
	transact(func(conn *nftables.Conn) { conn.DelTable(table) })
	m.Sh(t, "nft add table inet theirs; nft delete table inet theirs")
	select {
	case <-changes:
		t.Error("an own change, or one of another table, is reported")
	case <-time.After(200 * time.Millisecond):
	}
}
