package main

import (
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/choice"
	"github.com/linkspan/linkspan/kernel"
)

// chooseFirewall returns the backend that --firewall-backend asks for, and its
// name.
func chooseFirewall(h *kernel.Host, wanted string, accept firewall.Mark, logf func(string, ...any)) (firewall.Backend, string, error) {
	made, err := choice.Make(h, wanted, accept)
	if err != nil {
		return nil, "", err
	}
	if wanted == "auto" && made.Name != "nftables" {
		logf("firewall backend %s: %s", made.Name, made.Why)
	}
	return made.Backend, made.Name, nil
}
