package op

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// Dialect is a tool's way to say what an op does. Whatever a dialect has no word
// for is said as Op.String says it.
type Dialect string

// The dialects.
const (
	IP    Dialect = "ip"    // ip(8), bridge(8): all that there is
	Brctl Dialect = "brctl" // brctl(8) for bridges and their ports
)

// Dialects are the names that ParseDialect knows.
func Dialects() []string { return []string{string(IP), string(Brctl)} }

// ParseDialect reads a name; an empty one is IP.
func ParseDialect(name string) (Dialect, error) {
	if name == "" {
		return IP, nil
	}
	if !slices.Contains(Dialects(), name) {
		return "", linkspan.Errorf(linkspan.ErrInvalid, "unknown dialect %q: there are %s", name, strings.Join(Dialects(), ", "))
	}
	return Dialect(name), nil
}

// Bridger is an Op that brctl(8) has words for.
type Bridger interface {
	Op

	// Brctl returns the shell commands with the same effect as Do.
	Brctl() string
}

// Command says an op in a dialect.
func (d Dialect) Command(o Op) string {
	if bridger, ok := o.(Bridger); ok && d == Brctl {
		return bridger.Brctl()
	}
	return o.String()
}

// Brctl names the bridge; what it is like is a matter for ip.
func (o AddBridge) Brctl() string {
	return fmt.Sprintf("%s && ip link set %s address %s%s group %d", AddOwnBridge{Name: o.Name}.Brctl(), quote(o.Name), o.MAC, mtuWords(o.MTU), kernel.Mark)
}

// Brctl plugs the pair in when it is there.
func (o AddVeth) Brctl() string {
	if o.Master == "" {
		return o.String()
	}
	bridge := o.Master
	o.Master = ""
	return o.String() + " && " + PlugIn{Link: o.Name, Bridge: bridge}.Brctl()
}

// Brctl plugs the device in when it is there.
func (o AddVXLAN) Brctl() string {
	return strings.Replace(o.String(), " master "+quote(o.Master), "", 1) + " && " + PlugIn{Link: o.Name, Bridge: o.Master}.Brctl()
}

// Brctl adds the bridge.
func (o AddOwnBridge) Brctl() string { return "brctl addbr " + quote(o.Name) }

// Brctl adds the port.
func (o PlugIn) Brctl() string {
	return fmt.Sprintf("brctl addif %s %s", quote(o.Bridge), quote(o.Link))
}

// Brctl sets the parameter; brctl counts times in seconds.
func (o SetBridge) Brctl() string {
	seconds := strconv.FormatFloat(float64(o.Value)/100, 'f', -1, 64)
	bridge := quote(o.Bridge)
	switch o.Setting {
	case kernel.BridgeForwardDelay:
		return "brctl setfd " + bridge + " " + seconds
	case kernel.BridgeHelloTime:
		return "brctl sethello " + bridge + " " + seconds
	case kernel.BridgeMaxAge:
		return "brctl setmaxage " + bridge + " " + seconds
	case kernel.BridgeAgeingTime:
		return "brctl setageing " + bridge + " " + seconds
	case kernel.BridgeSTP:
		return "brctl stp " + bridge + " " + onOff(o.Value)
	case kernel.BridgePriority:
		return fmt.Sprintf("brctl setbridgeprio %s %d", bridge, o.Value)
	}
	return o.String()
}

// Brctl sets the parameter, if the op says of which bridge the port is.
func (o SetPort) Brctl() string {
	if o.Bridge == "" {
		return o.String()
	}
	port := quote(o.Bridge) + " " + quote(o.Port)
	switch o.Setting {
	case kernel.PortPriority:
		return fmt.Sprintf("brctl setportprio %s %d", port, o.Value)
	case kernel.PortCost:
		return fmt.Sprintf("brctl setpathcost %s %d", port, o.Value)
	case kernel.PortHairpin:
		return "brctl hairpin " + port + " " + onOff(o.Value)
	}
	return o.String()
}

func onOff(value uint32) string { return map[bool]string{true: "on", false: "off"}[value != 0] }
