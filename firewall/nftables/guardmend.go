package nftables

import (
	"fmt"

	"github.com/google/nftables"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// GuardTables names the guard's table.
func (Backend) GuardTables() []string { return []string{guard().table.Name} }

// MendGuard lists each set of the guard once, however many ports there are.
func (b Backend) MendGuard(h *kernel.Host, ports []firewall.PortGuard) (op.Plan, error) {
	table := guard()
	var plan op.Plan
	err := h.Transact("", func(conn *nftables.Conn) error {
		plan = nil
		found, err := table.find(conn)
		if err != nil {
			return err
		}
		whole := found
		if found {
			differs, err := table.differences(conn)
			if err != nil {
				return err
			}
			whole = differs == nil
		}
		there := make(map[string]map[string]bool) // by set, by key
		if whole {
			for _, s := range table.sets {
				s.Table = table.table
				dump, err := conn.GetSetElements(&s.Set)
				if err != nil {
					return fmt.Errorf("listing set %s of table %s: %w", s.Name, table.name(), err)
				}
				there[s.Name] = make(map[string]bool, len(dump))
				for _, e := range dump {
					there[s.Name][string(e.Key)] = true
				}
			}
		} else {
			plan = append(plan, b.GuardBase()...)
		}
		for _, port := range ports {
			if o, ours := port.(GuardPort); ours && !o.within(there) {
				plan = append(plan, op.Step{Why: "Port " + o.Link + " is guarded no more, or not wholly.", Op: o})
			}
		}
		return nil
	})
	return plan, err
}

func (o GuardPort) within(there map[string]map[string]bool) bool {
	sets, err := o.elements()
	if err != nil {
		return true // it never was guarded
	}
	for _, one := range sets {
		for _, item := range one.items {
			if !there[one.set.Name][string(item.Key)] {
				return false
			}
		}
	}
	return true
}
