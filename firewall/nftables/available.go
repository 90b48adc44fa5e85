package nftables

import (
	"github.com/google/nftables"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// Available returns an error of kind linkspan.ErrUnsupported if the kernel
// lacks nftables.
func Available(h *kernel.Host) error {
	err := h.Transact("", func(conn *nftables.Conn) error {
		_, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
		return err
	})
	if err != nil {
		return linkspan.Errorf(linkspan.ErrUnsupported, "this kernel lacks nftables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET): choose --firewall-backend iptables: %w", err)
	}
	return nil
}
