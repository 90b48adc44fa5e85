package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// Where a machine's own rules about forwarded packets go. The table is one of
// its own, so that they stay when ours is deleted, made anew, or given up for that
// of another backend.
const (
	userTable = "linkspan-user"
	userChain = "forward"
)

// AddUserTable makes the table "inet linkspan-user" with an empty chain that is
// asked about forwarded packets before ours. Neither is touched once it is
// there.
type AddUserTable struct{}

// Backend names the backend that the op belongs to.
func (AddUserTable) Backend() string { return Name }

// Do makes what is missing of the two. That they are there is success: they are
// the user's.
func (AddUserTable) Do(_ context.Context, h *kernel.Host) error {
	err := h.Transact("", func(conn *nftables.Conn) error {
		missing, err := userMissing(conn)
		if missing == nil || err != nil {
			return err
		}
		accept := nftables.ChainPolicyAccept
		table := conn.AddTable(&nftables.Table{Name: userTable, Family: nftables.TableFamilyINet})
		conn.AddChain(&nftables.Chain{
			Name: userChain, Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
			Priority: nftables.ChainPriorityRef(-10), Policy: &accept,
		})
		return nil
	})
	if err != nil {
		return fmt.Errorf("adding table inet %s: %w", userTable, err)
	}
	return nil
}

// Undo deletes the table, unless there is anything in it but the empty chain.
func (AddUserTable) Undo(_ context.Context, h *kernel.Host) error {
	err := h.Transact("", func(conn *nftables.Conn) error {
		table, chains, err := userChains(conn)
		if table == nil || err != nil {
			return err
		}
		if len(chains) > 1 || len(chains) == 1 && chains[0].Name != userChain {
			return nil
		}
		for _, c := range chains {
			rules, failed := conn.GetRules(table, c)
			if failed != nil || len(rules) > 0 {
				return failed
			}
		}
		sets, err := conn.GetSets(table)
		if err != nil || len(sets) > 0 {
			return err
		}
		conn.DelTable(table)
		return nil
	})
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("removing table inet %s: %w", userTable, err)
	}
	return nil
}

// Check looks for table and chain, whatever is in them.
func (AddUserTable) Check(_ context.Context, h *kernel.Host) error {
	return h.Transact("", func(conn *nftables.Conn) error {
		missing, err := userMissing(conn)
		return errors.Join(missing, err)
	})
}

func (AddUserTable) String() string {
	return fmt.Sprintf("nft 'table inet %s { chain %s { type filter hook forward priority -10; }; }'", userTable, userChain)
}

// userMissing says what is missing of the user's table, if anything is.
func userMissing(conn *nftables.Conn) (missing, err error) {
	table, chains, err := userChains(conn)
	switch {
	case err != nil:
		return nil, err
	case table == nil:
		return linkspan.Errorf(linkspan.ErrNotFound, "table inet %s is missing (see: nft list tables)", userTable), nil
	case !slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Name == userChain }):
		return linkspan.Errorf(linkspan.ErrNotFound, "chain %s is missing from table inet %s (see: nft list table inet %s)", userChain, userTable, userTable), nil
	}
	return nil, nil
}

// userChains returns the user's table and its chains; nil if there is none.
func userChains(conn *nftables.Conn) (*nftables.Table, []*nftables.Chain, error) {
	table, err := conn.ListTableOfFamily(userTable, nftables.TableFamilyINet)
	if isMissing(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("looking up table inet %s: %w", userTable, err)
	}
	all, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, nil, fmt.Errorf("listing the chains of table inet %s: %w", userTable, err)
	}
	return table, slices.DeleteFunc(all, func(c *nftables.Chain) bool { return c.Table.Name != userTable }), nil
}
