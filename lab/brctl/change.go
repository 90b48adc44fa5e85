package brctl

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// longestName is the length of a link's name, in bytes; bridge-utils cuts off what
// is longer (IFNAMSIZ in linux/if.h, less the zero byte).
const longestName = 15

func addBridge(ctx context.Context, t Tool, args []string) error {
	name := args[0][:min(len(args[0]), longestName)]
	if name == "" {
		return refuse("add bridge failed: %s", reason(unix.EINVAL))
	}
	err := t.change(ctx, op.Plan{{Why: "A switch without ports.", Op: op.AddOwnBridge{Name: name}}})
	switch {
	case errors.Is(err, unix.EEXIST):
		return refuse("device %s already exists; can't create bridge with the same name", args[0])
	case err != nil:
		return refuse("add bridge failed: %s", reason(err))
	}
	return nil
}

func deleteBridge(ctx context.Context, t Tool, args []string) error {
	name := args[0]
	if _, known, err := t.bridge(name); err != nil {
		return err
	} else if !known {
		if t.exists(name) {
			return refuse("can't delete bridge %s: Operation not permitted", name)
		}
		return refuse("bridge %s doesn't exist; can't delete it", name)
	}
	err := t.takeBack(ctx, op.Plan{{Op: op.AddOwnBridge{Name: name}}}, fmt.Sprintf("ip link delete %s type bridge", name), "brctl delbr "+name)
	switch {
	case errors.Is(err, unix.EBUSY):
		return refuse("bridge %s is still up; can't delete it", name)
	case err != nil:
		return refuse("can't delete bridge %s: %s", name, reason(err))
	}
	return nil
}

func addPorts(ctx context.Context, t Tool, args []string) error {
	for _, device := range args[1:] {
		if err := addPort(ctx, t, args[0], device); err != nil {
			return err
		}
	}
	return nil
}

func addPort(ctx context.Context, t Tool, bridge, device string) error {
	if !t.exists(device) {
		return refuse("interface %s does not exist!", device)
	}
	if _, known, err := t.bridge(bridge); err != nil {
		return err
	} else if !known {
		return t.noSwitch(bridge, device, "can't add %s to bridge %s: %s")
	}
	err := t.change(ctx, op.Plan{{Why: "The link becomes a port: what it receives goes to the switch.", Op: op.PlugIn{Link: device, Bridge: bridge}}})
	switch {
	case errors.Is(err, unix.EBUSY):
		return refuse("device %s is already a member of a bridge; can't add it to bridge %s.", device, bridge)
	case errors.Is(err, unix.ELOOP):
		return refuse("device %s is a bridge device itself; can't add a bridge device to a bridge device.", device)
	case err != nil:
		return refuse("can't add %s to bridge %s: %s", device, bridge, reason(err))
	}
	return nil
}

// noSwitch says why a name cannot stand for a bridge.
func (t Tool) noSwitch(bridge, device, format string) error {
	if t.exists(bridge) {
		return refuse(format, device, bridge, "Operation not supported")
	}
	return refuse("bridge %s does not exist!", bridge)
}

func deletePorts(ctx context.Context, t Tool, args []string) error {
	for _, device := range args[1:] {
		if err := deletePort(ctx, t, args[0], device); err != nil {
			return err
		}
	}
	return nil
}

func deletePort(ctx context.Context, t Tool, bridge, device string) error {
	if !t.exists(device) {
		return refuse("interface %s does not exist!", device)
	}
	b, known, err := t.bridge(bridge)
	if err != nil {
		return err
	}
	if !known {
		return t.noSwitch(bridge, device, "can't delete %s from %s: %s")
	}
	if _, plugged := portOf(b, device); !plugged {
		return refuse("device %s is not a port of %s", device, bridge)
	}
	err = t.takeBack(ctx, op.Plan{{Op: op.PlugIn{Link: device, Bridge: bridge}}}, fmt.Sprintf("ip link set %s nomaster", device), fmt.Sprintf("brctl delif %s %s", bridge, device))
	if err != nil {
		return refuse("can't delete %s from %s: %s", device, bridge, reason(err))
	}
	return nil
}

func portOf(b kernel.Bridge, device string) (kernel.BridgePort, bool) {
	for _, port := range b.Ports {
		if port.Name == device {
			return port, true
		}
	}
	return kernel.BridgePort{}, false
}

// setTime makes the command that sets a time, given in seconds with a fraction.
func setTime(setting kernel.BridgeSetting, what, bad string) func(context.Context, Tool, []string) error {
	return func(ctx context.Context, t Tool, args []string) error {
		seconds, err := strconv.ParseFloat(args[1], 64)
		if err != nil || seconds < 0 || seconds > 1<<24 {
			return refusal(bad)
		}
		return t.setBridge(ctx, args[0], setting, uint32(seconds*100), what)
	}
}

func setPriority(ctx context.Context, t Tool, args []string) error {
	priority, err := strconv.ParseInt(args[1], 0, 32)
	if err != nil {
		return refusal("bad priority")
	}
	return t.setBridge(ctx, args[0], kernel.BridgePriority, uint32(uint16(priority)), "bridge priority")
}

func setTree(ctx context.Context, t Tool, args []string) error {
	on, err := onOff(args[1])
	if err != nil {
		return err
	}
	return t.setBridge(ctx, args[0], kernel.BridgeSTP, on, "stp status")
}

func onOff(word string) (uint32, error) {
	switch word {
	case "on", "yes", "1":
		return 1, nil
	case "off", "no", "0":
		return 0, nil
	}
	return 0, refusal("expect on/off for argument")
}

func (t Tool) setBridge(ctx context.Context, name string, setting kernel.BridgeSetting, value uint32, what string) error {
	b, known, err := t.bridge(name)
	if err == nil && !known {
		err = linkspan.Errorf(linkspan.ErrNotFound, "bridge %s: %w", name, unix.ENODEV)
	}
	if err == nil {
		err = t.change(ctx, op.Plan{{
			Why: fmt.Sprintf("The %s of the switch, until now %d.", what, b.Setting(setting)),
			Op:  op.SetBridge{Bridge: name, Setting: setting, Value: value, Before: b.Setting(setting)},
		}})
	}
	if err != nil {
		return refuse("set %s failed: %s", what, reason(err))
	}
	return nil
}

// setPort makes the command that sets a number of a port.
func setPort(setting kernel.PortSetting, what, bad string) func(context.Context, Tool, []string) error {
	return func(ctx context.Context, t Tool, args []string) error {
		value, err := strconv.ParseInt(args[2], 0, 32)
		if err != nil {
			return refusal(bad)
		}
		if err := t.setPort(ctx, args[1], setting, uint32(value), what); err != nil {
			return refuse("set %s failed: %s", what, reason(err))
		}
		return nil
	}
}

func hairpin(ctx context.Context, t Tool, args []string) error {
	on, err := onOff(args[2])
	if err != nil {
		return err
	}
	switch {
	case !t.exists(args[1]):
		return refuse("interface %s does not exist!", args[1])
	case !t.exists(args[0]):
		return refuse("bridge %s does not exist!", args[0])
	}
	if err := t.setPort(ctx, args[1], kernel.PortHairpin, on, "hairpin mode"); err != nil {
		return refuse("can't set %s to hairpin on bridge %s: %s", args[1], args[0], reason(err))
	}
	return nil
}

// setPort sets a number of a port of whichever bridge: bridge-utils does not look
// at the name of that either.
func (t Tool) setPort(ctx context.Context, device string, setting kernel.PortSetting, value uint32, what string) error {
	if !t.exists(device) {
		return linkspan.Errorf(linkspan.ErrNotFound, "link %s: %w", device, unix.ENODEV)
	}
	bridges, err := t.Host.Bridges("")
	if err != nil {
		return err
	}
	for _, b := range bridges {
		if port, plugged := portOf(b, device); plugged {
			return t.change(ctx, op.Plan{{
				Why: fmt.Sprintf("The %s of the port, until now %d.", what, port.Setting(setting)),
				Op:  op.SetPort{Port: device, Bridge: b.Name, Setting: setting, Value: value, Before: port.Setting(setting)},
			}})
		}
	}
	return linkspan.Errorf(linkspan.ErrNotFound, "link %s is no port: %w", device, unix.ENOENT)
}

// reason is what strerror(3) says of a kernel's refusal, or the whole error if
// the refusal is our own.
func reason(err error) string {
	var number unix.Errno
	if !errors.As(err, &number) {
		return err.Error()
	}
	switch number {
	case unix.ERANGE:
		return "Numerical result out of range"
	case unix.EINVAL:
		return "Invalid argument"
	case unix.ENODEV:
		return "No such device"
	case unix.ENOENT:
		return "No such file or directory"
	case unix.EPERM:
		return "Operation not permitted"
	case unix.EOPNOTSUPP:
		return "Operation not supported"
	case unix.EBUSY:
		return "Device or resource busy"
	case unix.EXFULL:
		return "Exchange full"
	}
	return number.Error()
}
