package op

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// LoseFrames drops some of the frames that arrive on a link, by chance, before
// anything but a packet socket sees them: nftables at the ingress hook of the
// link. The table is named for the link and holds nothing else.
type LoseFrames struct {
	NS   string `json:",omitempty"`
	Link string
	Loss uint32 // frames of a million
}

func (o LoseFrames) table() *nftables.Table {
	return &nftables.Table{Name: kernel.LossTable(o.Link), Family: nftables.TableFamilyNetdev}
}

// Do makes the table. One that is there already is refused.
func (o LoseFrames) Do(_ context.Context, h *kernel.Host) error {
	if _, err := find(h, o.NS, o.Link); err != nil {
		return err
	}
	losses, err := h.Losses(o.NS)
	if err != nil {
		return err
	}
	if _, there := losses[o.Link]; there {
		return linkspan.Errorf(linkspan.ErrConflict, "losing frames of link %s: it loses some already (see: %snft list table netdev %s)", o.Link, nsenter(o.NS), o.table().Name)
	}
	err = h.Transact(o.NS, func(conn *nftables.Conn) error {
		table := conn.AddTable(o.table())
		chain := conn.AddChain(&nftables.Chain{
			Name: kernel.LossChain, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Device: o.Link,
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Numgen{Register: 1, Modulus: kernel.LossScale, Type: unix.NFT_NG_RANDOM},
			&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
			&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(o.Loss)},
			&expr.Counter{},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
		return nil
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return linkspan.Errorf(linkspan.ErrUnsupported, "losing frames of link %s: this kernel lacks random numbers or hooks of links in nftables, CONFIG_NFT_NUMGEN or CONFIG_NF_TABLES_NETDEV: %w", o.Link, err)
	}
	if err != nil {
		return fmt.Errorf("losing frames of link %s: %w", o.Link, err)
	}
	return nil
}

// Undo removes the table.
func (o LoseFrames) Undo(_ context.Context, h *kernel.Host) error {
	losses, err := h.Losses(o.NS)
	if err == nil {
		if _, there := losses[o.Link]; !there {
			return nil
		}
		err = h.Transact(o.NS, func(conn *nftables.Conn) error {
			conn.DelTable(o.table())
			return nil
		})
	}
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("mending link %s: %w", o.Link, err)
	}
	return nil
}

// Check finds the table with its share of losses.
func (o LoseFrames) Check(_ context.Context, h *kernel.Host) error {
	losses, err := h.Losses(o.NS)
	if err != nil {
		return err
	}
	if got := losses[o.Link]; got.Share != o.Loss {
		return fmt.Errorf("link %s loses %d frames of a million, not %d (see: %snft list table netdev %s)", o.Link, got.Share, o.Loss, nsenter(o.NS), o.table().Name)
	}
	return nil
}

func (o LoseFrames) String() string {
	return fmt.Sprintf("%snft %s", nsenter(o.NS), quote(fmt.Sprintf(
		"table netdev %s { chain %s { type filter hook ingress device \"%s\" priority 0; numgen random mod %d < %d counter drop; }; }",
		o.table().Name, kernel.LossChain, o.Link, kernel.LossScale, o.Loss)))
}
