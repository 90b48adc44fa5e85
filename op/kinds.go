package op

// kernelKinds names the ops of this package. The names are part of stored
// plans: they never change.
func kernelKinds() Kinds {
	return Kinds{
		"bridge":   AddBridge{},
		"veth":     AddVeth{},
		"up":       SetUp{},
		"isolated": SetIsolated{},
		"address":  AddAddress{},
		"route":    AddRoute{},
		"netns":    AddNetns{},
		"adopt":    AdoptBridge{},
		"raise":    Raise{},
		"sysctl":   SetSysctl{},
		"macvlan":  AddMacvlan{},
		"ipvlan":   AddIPvlan{},
		"vlan":     ShareVLAN{},
		"vxlan":    AddVXLAN{},
		"told":     SetTold{},
		"file":     WriteFile{},

		"mtu":          SetMTU{},
		"no address":   RemoveAddress{},
		"not isolated": ClearIsolated{},
		"sysctl reset": ResetSysctl{},

		"cable":          AddCable{},
		"own bridge":     AddOwnBridge{},
		"plug in":        PlugIn{},
		"bridge setting": SetBridge{},
		"port setting":   SetPort{},
		"clear-flows":    ClearFlows{},
		"drop-flows":     DropFlows{},

		"tunnel":    SetTunnel{},
		"station":   SetStation{},
		"neighbour": SetNeighbour{},
		"pin":       PinNeighbour{},

		"rate":  LimitRate{},
		"netem": Netem{},
		"loss":  LoseFrames{},

		"move": MoveLink{},
		"mac":  SetMAC{},
	}
}
