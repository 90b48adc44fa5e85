package brctl

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/linkspan/linkspan/kernel"
)

// show prints the named bridges, or all of them, with their ports. It goes on
// past a name that is no bridge.
func show(_ context.Context, t Tool, names []string) error {
	bridges, err := t.Host.Bridges("")
	if err != nil {
		return err
	}
	byName := make(map[string]kernel.Bridge, len(bridges))
	for _, b := range bridges {
		byName[b.Name] = b
	}
	chosen := bridges
	if len(names) > 0 {
		chosen = nil
	}
	for _, name := range names {
		b, known := byName[name]
		if known {
			chosen = append(chosen, b)
			continue
		}
		fmt.Fprintln(t.Err, t.noBridge(name))
		err = errSaid
	}
	if len(chosen) > 0 {
		fmt.Fprint(t.Out, "bridge name\tbridge id\t\tSTP enabled\tinterfaces\n")
	}
	for _, b := range chosen {
		t.row(b)
	}
	return err
}

func (t Tool) row(b kernel.Bridge) {
	stp := "no"
	if b.STP {
		stp = "yes"
	}
	fmt.Fprintf(t.Out, "%s\t\t%s\t%s\t\t", b.Name, b.ID, stp)
	for i, port := range b.Ports {
		if i > 0 {
			fmt.Fprint(t.Out, "\n\t\t\t\t\t\t\t")
		}
		fmt.Fprint(t.Out, port.Name, t.who(port.Name))
	}
	fmt.Fprintln(t.Out)
}

func (t Tool) who(link string) string {
	if t.Who == nil {
		return ""
	}
	if owner := t.Who(link); owner != "" {
		return "\t" + owner
	}
	return ""
}

// noBridge tells a link of another kind from no link at all.
func (t Tool) noBridge(name string) error {
	if t.exists(name) {
		return refuse("device %s is not a bridge!", name)
	}
	return refuse("bridge %s does not exist!", name)
}

func (t Tool) exists(link string) bool {
	links, err := t.Host.Links("")
	if err != nil {
		return false
	}
	_, err = links.LinkByName(link)
	return err == nil
}

func showStations(_ context.Context, t Tool, args []string) error {
	b, known, err := t.bridge(args[0])
	if err != nil {
		return err
	}
	if !known {
		return refuse("read of forward table failed: No such device")
	}
	stations, err := t.Host.Forwarding("", b)
	if err != nil {
		return err
	}
	owners := make(map[uint16]string, len(b.Ports))
	for _, port := range b.Ports {
		owners[port.Number] = t.who(port.Name)
	}
	fmt.Fprint(t.Out, "port no\tmac addr\t\tis local?\tageing timer\n")
	for _, s := range stations {
		local := "no"
		if s.Local {
			local = "yes"
		}
		fmt.Fprintf(t.Out, "%3d\t%s\t%s\t\t%s%s\n", s.Port, s.MAC, local, clock(s.Age), owners[s.Port])
	}
	return nil
}

// clock prints a time as seconds and hundredths in seven columns.
func clock(d time.Duration) string {
	hundredths := d / (10 * time.Millisecond)
	return fmt.Sprintf("%4d.%.2d", hundredths/100, hundredths%100)
}

func showTree(_ context.Context, t Tool, args []string) error {
	b, known, err := t.bridge(args[0])
	if err != nil {
		return err
	}
	if !known {
		return t.noBridge(args[0])
	}
	var text strings.Builder
	writeBridge(&text, b)
	for _, port := range b.Ports {
		writePort(&text, port, t.who(port.Name))
	}
	_, err = io.WriteString(t.Out, text.String())
	return err
}

func writeBridge(w *strings.Builder, b kernel.Bridge) {
	fmt.Fprintf(w, "%s\n", b.Name)
	fmt.Fprintf(w, " bridge id\t\t%s\n", b.ID)
	fmt.Fprintf(w, " designated root\t%s\n", b.Root)
	fmt.Fprintf(w, " root port\t\t%4d\t\t\tpath cost\t\t%4d\n", b.RootPort, b.RootCost)
	fmt.Fprintf(w, " max age\t\t%s\t\t\tbridge max age\t\t%s\n", clock(b.MaxAge), clock(b.MaxAge))
	fmt.Fprintf(w, " hello time\t\t%s\t\t\tbridge hello time\t%s\n", clock(b.HelloTime), clock(b.HelloTime))
	fmt.Fprintf(w, " forward delay\t\t%s\t\t\tbridge forward delay\t%s\n", clock(b.ForwardDelay), clock(b.ForwardDelay))
	fmt.Fprintf(w, " ageing time\t\t%s\n", clock(b.AgeingTime))
	fmt.Fprintf(w, " hello timer\t\t%s\t\t\ttcn timer\t\t%s\n", clock(b.Hello), clock(b.TCN))
	fmt.Fprintf(w, " topology change timer\t%s\t\t\tgc timer\t\t%s\n", clock(b.Change), clock(b.Collector))
	fmt.Fprintf(w, " flags\t\t\t%s%s\n\n\n", flag(b.TopologyChange, "TOPOLOGY_CHANGE "), flag(b.ChangeDetected, "TOPOLOGY_CHANGE_DETECTED "))
}

func writePort(w *strings.Builder, p kernel.BridgePort, who string) {
	fmt.Fprintf(w, "%s (%d)%s\n", p.Name, p.Number, who)
	fmt.Fprintf(w, " port id\t\t%.4x\t\t\tstate\t\t%15s\n", p.ID, p.State)
	fmt.Fprintf(w, " designated root\t%s\tpath cost\t\t%4d\n", p.Root, p.Cost)
	fmt.Fprintf(w, " designated bridge\t%s\tmessage age timer\t%s\n", p.Designated, clock(p.MessageAge))
	fmt.Fprintf(w, " designated port\t%.4x\t\t\tforward delay timer\t%s\n", p.DesignatedPort, clock(p.ForwardDelay))
	fmt.Fprintf(w, " designated cost\t%4d\t\t\thold timer\t\t%s\n", p.DesignatedCost, clock(p.Hold))
	fmt.Fprintf(w, " flags\t\t\t%s%s\n", flag(p.ConfigDue, "CONFIG_PENDING "), flag(p.ChangeAcknowledged, "TOPOLOGY_CHANGE_ACK "))
	if p.Hairpin {
		fmt.Fprintf(w, " hairpin mode\t\t%4d\n", 1)
	}
	w.WriteByte('\n')
}

func flag(set bool, word string) string {
	if set {
		return word
	}
	return ""
}
