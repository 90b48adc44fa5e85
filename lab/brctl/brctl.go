// Package brctl speaks the dialect of brctl(8), the tool by which a generation
// learnt Linux's Ethernet switch: the same words in, the same lines out.
//
// A bridge is three tables. Its ports are the links plugged into it:
//
//	bridge name	bridge id		STP enabled	interfaces
//	br-lab		8000.02420a4d0001	no		veth0123456
//
// its forwarding table says behind which port a station was last heard
// (showmacs), and the spanning tree says which ports may forward at all
// (showstp). What fills the second: every frame that comes in by a port teaches
// the bridge that its sender is there, until nothing was heard of it for the
// ageing time. What it has not learnt it floods to all ports.
//
// Unlike bridge-utils, which reads /sys and so lists the bridges of whichever
// namespace /sys was mounted in, this one asks by netlink and is right in any
// namespace; and every change is an op.Plan that can be explained before it is
// done.
package brctl

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// Tool runs command lines in the namespace that Host was opened in.
type Tool struct {
	Host     *kernel.Host
	Out, Err io.Writer

	// Explain prints the commands that a change amounts to, in the dialect that
	// is given, and does nothing.
	Explain bool
	Dialect op.Dialect

	// Who, if set, says whose a link is: it is printed behind each port.
	Who func(link string) string
}

// command is a word of the dialect.
type command struct {
	name      string
	arguments string
	about     string
	least     int
	most      int
	run       func(context.Context, Tool, []string) error
}

// commands are in the order of the usage text.
func commands() []command {
	return []command{
		{"addbr", "<bridge>", "add bridge", 1, 1, addBridge},
		{"delbr", "<bridge>", "delete bridge", 1, 1, deleteBridge},
		{"addif", "<bridge> <device>", "add interface to bridge", 2, 1024, addPorts},
		{"delif", "<bridge> <device>", "delete interface from bridge", 2, 1024, deletePorts},
		{"hairpin", "<bridge> <port> {on|off}", "turn hairpin on/off", 3, 3, hairpin},
		{"setageing", "<bridge> <time>", "set ageing time", 2, 2, setTime(kernel.BridgeAgeingTime, "ageing time", "bad ageing time value")},
		{"setbridgeprio", "<bridge> <prio>", "set bridge priority", 2, 2, setPriority},
		{"setfd", "<bridge> <time>", "set bridge forward delay", 2, 2, setTime(kernel.BridgeForwardDelay, "forward delay", "bad forward delay value")},
		{"sethello", "<bridge> <time>", "set hello time", 2, 2, setTime(kernel.BridgeHelloTime, "hello timer", "bad hello timer value")},
		{"setmaxage", "<bridge> <time>", "set max message age", 2, 2, setTime(kernel.BridgeMaxAge, "max age", "bad max age value")},
		{"setpathcost", "<bridge> <port> <cost>", "set path cost", 3, 3, setPort(kernel.PortCost, "path cost", "bad path cost value")},
		{"setportprio", "<bridge> <port> <prio>", "set port priority", 3, 3, setPort(kernel.PortPriority, "port priority", "bad path priority value")},
		{"show", "[ <bridge> ]", "show a list of bridges", 0, 1024, show},
		{"showmacs", "<bridge>", "show a list of mac addrs", 1, 1, showStations},
		{"showstp", "<bridge>", "show bridge stp info", 1, 1, showTree},
		{"stp", "<bridge> {on|off}", "turn stp on/off", 2, 2, setTree},
	}
}

// refusal is an error in the dialect's own words, printed without a prefix.
type refusal string

func (r refusal) Error() string { return string(r) }

// errSaid is a failure whose words are printed already.
var errSaid = errors.New("said")

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// Run carries out a command line without the word brctl and returns the exit
// status of bridge-utils: 0, or 1 with a line on Err.
func (t Tool) Run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		t.usage(t.Err)
		return 1
	}
	if args[0] == "-h" || args[0] == "--help" {
		t.usage(t.Err)
		return 0
	}
	if args[0] == "-V" || args[0] == "--version" {
		fmt.Fprintln(t.Out, "bridge-utils, 1.7")
		return 0
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		if n := len(args) - 1; n < c.least || n > c.most {
			fmt.Fprintf(t.Err, "Incorrect number of arguments for command\nUsage: brctl %s %s\n", c.name, c.help())
			return 1
		}
		err := c.run(ctx, t, args[1:])
		if err == nil {
			return 0
		}
		if !errors.Is(err, errSaid) {
			fmt.Fprintln(t.Err, err)
		}
		return 1
	}
	fmt.Fprintf(t.Err, "never heard of command [%s]\n", args[0])
	t.usage(t.Err)
	return 1
}

func (t Tool) usage(w io.Writer) {
	fmt.Fprint(w, "Usage: brctl [commands]\ncommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "\t%-10s\t%s\n", c.name, c.help())
	}
}

// help is the rest of a command's line in the usage text.
func (c command) help() string {
	tabs := "\t\t"
	if len(c.arguments) > 15 {
		tabs = "\t"
	}
	return c.arguments + tabs + c.about
}

// bridge finds a bridge of the namespace by name.
func (t Tool) bridge(name string) (kernel.Bridge, bool, error) {
	bridges, err := t.Host.Bridges("")
	if err != nil {
		return kernel.Bridge{}, false, err
	}
	for _, b := range bridges {
		if b.Name == name {
			return b, true, nil
		}
	}
	return kernel.Bridge{}, false, nil
}

// change does a plan, or prints it.
func (t Tool) change(ctx context.Context, plan op.Plan) error {
	if t.Explain {
		fmt.Fprint(t.Out, plan.In(t.Dialect))
		return nil
	}
	return (&op.Executor{Host: t.Host}).Do(ctx, plan)
}

// takeBack undoes a plan, or prints the command that would: as ip says it, or as
// brctl does.
func (t Tool) takeBack(ctx context.Context, plan op.Plan, ip, brctl string) error {
	if t.Explain {
		fmt.Fprintln(t.Out, map[bool]string{true: brctl, false: ip}[t.Dialect == op.Brctl])
		return nil
	}
	return (&op.Executor{Host: t.Host}).Undo(ctx, plan)
}
