package endpoint

import (
	"strings"

	"github.com/linkspan/linkspan"
)

// placeholder stands for the name of the interface, which nobody knows before
// it is there.
const placeholder = "IFNAME"

// Sysctl is a kernel parameter of one interface, as net.ipv4.conf.IFNAME.forwarding=1
// says it.
type Sysctl struct {
	Family, Table string // "ipv4" and "conf"
	Name          string // of the parameter, with slashes if it has parts
	Value         string
}

// Key returns the parameter's path under /proc/sys for an interface.
func (s Sysctl) Key(link string) string {
	return "net/" + s.Family + "/" + s.Table + "/" + link + "/" + s.Name
}

func (s Sysctl) String() string {
	return "net." + s.Family + "." + s.Table + "." + placeholder + "." + strings.ReplaceAll(s.Name, "/", ".") + "=" + s.Value
}

// ParseSysctls reads the value of OptionSysctls: assignments between commas.
// The placeholder may be in small letters, since the docker command lowers
// what --network says. Its errors are of kind linkspan.ErrInvalid.
func ParseSysctls(text string) ([]Sysctl, error) {
	var all []Sysctl
	if text == "" {
		return nil, nil
	}
	for assignment := range strings.SplitSeq(text, ",") {
		s, ok := parseSysctl(assignment)
		if !ok {
			return nil, linkspan.Errorf(linkspan.ErrInvalid,
				"unrecognised network interface sysctl '%s'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'", assignment)
		}
		all = append(all, s)
	}
	return all, nil
}

func parseSysctl(assignment string) (Sysctl, bool) {
	key, value, assigned := strings.Cut(assignment, "=")
	parts := strings.Split(key, ".")
	if !assigned || len(parts) < 5 || parts[0] != "net" || !strings.EqualFold(parts[3], placeholder) {
		return Sysctl{}, false
	}
	switch parts[1] {
	case "ipv4", "ipv6", "mpls":
	default:
		return Sysctl{}, false
	}
	for _, part := range parts[2:] {
		// What is joined to a path must not leave it.
		if part == "" || strings.ContainsAny(part, "/\x00") {
			return Sysctl{}, false
		}
	}
	return Sysctl{Family: parts[1], Table: parts[2], Name: strings.Join(parts[4:], "/"), Value: value}, true
}

// sysctls are those of the endpoint. They were checked when they were asked for.
func (e Endpoint) sysctls() []Sysctl {
	all, err := ParseSysctls(e.Config.Options[OptionSysctls])
	if err != nil {
		return nil
	}
	return all
}
