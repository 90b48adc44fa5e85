package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// containerRow is a line of ps: texts, under the names that Docker's templates
// have for them.
type containerRow struct {
	Command      string
	CreatedAt    string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Ports        string
	RunningFor   string
	Size         string
	State        string
	Status       string

	labels map[string]string
}

// Label is for templates: {{.Label "key"}}.
func (r containerRow) Label(key string) string { return r.labels[key] }

func containerListing(size bool) listing {
	table := "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
	if size {
		table += "\t{{.Size}}"
	}
	return listing{
		head: header{
			"Command": "COMMAND", "CreatedAt": "CREATED AT", "ID": "CONTAINER ID", "Image": "IMAGE", "Labels": "LABELS",
			"LocalVolumes": "LOCAL VOLUMES", "Mounts": "MOUNTS", "Names": "NAMES", "Networks": "NETWORKS", "Ports": "PORTS",
			"RunningFor": "CREATED", "Size": "SIZE", "State": "STATE", "Status": "STATUS",
		},
		table: table,
		quiet: "{{.ID}}",
	}
}

func newPs(a *app) *cobra.Command {
	var o client.ContainerListOptions
	var filters []string
	var format string
	var noTrunc, quiet, latest bool
	cmd := &cobra.Command{Use: "ps", Short: "List containers", Args: cobra.NoArgs}
	flags := cmd.Flags()
	flags.BoolVarP(&o.All, "all", "a", false, "show all containers (default shows just running)")
	flags.BoolVarP(&o.Size, "size", "s", false, "display total file sizes")
	flags.IntVarP(&o.Limit, "last", "n", -1, "show n last created containers (includes all states)")
	flags.BoolVarP(&latest, "latest", "l", false, "show the latest created container (includes all states)")
	flags.StringArrayVarP(&filters, "filter", "f", nil, "filter output based on conditions provided")
	flags.StringVar(&format, "format", "", "format output: 'table', 'table TEMPLATE', 'json' or a Go `template`")
	flags.BoolVar(&noTrunc, "no-trunc", false, "do not truncate output")
	flags.BoolVarP(&quiet, "quiet", "q", false, "only display container IDs")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if o.Filters, err = parseFilters(filters); err != nil {
			return err
		}
		if latest && o.Limit == -1 {
			o.Limit = 1
		}
		// A template that asks for sizes needs them counted.
		size := o.Size
		o.Size = o.Size || strings.Contains(format, ".Size") || strings.Contains(format, "json .}}")
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		listed, err := daemon.ContainerList(cmd.Context(), o)
		if err != nil {
			return err
		}
		return print(a.out, containerListing(size), format, quiet, containerRows(listed.Items, noTrunc, time.Now()))
	}
	return cmd
}

func containerRows(items []container.Summary, whole bool, now time.Time) []containerRow {
	rows := make([]containerRow, len(items))
	for i, item := range items {
		command := item.Command
		if !whole {
			command = ellipsis(command, 20)
		}
		created := time.Unix(item.Created, 0)
		rows[i] = containerRow{
			Command:      strconv.Quote(command),
			CreatedAt:    created.String(),
			ID:           shortID(item.ID, whole),
			Image:        imageOf(item, whole),
			Labels:       joinLabels(item.Labels),
			LocalVolumes: localVolumes(item.Mounts),
			Mounts:       mountNames(item.Mounts, whole),
			Names:        names(item.Names, whole),
			Networks:     networkNames(item.NetworkSettings),
			Ports:        portsOf(item.Ports),
			RunningFor:   units.HumanDuration(now.Sub(created)) + " ago",
			Size:         sizeOf(item),
			State:        string(item.State),
			Status:       item.Status,
			labels:       item.Labels,
		}
	}
	return rows
}

// ellipsis cuts a text to a number of characters, the last of them a sign
// that something is missing.
func ellipsis(text string, length int) string {
	runes := []rune(text)
	if len(runes) <= length {
		return text
	}
	return string(runes[:length-1]) + "…"
}

// imageOf names what a container's root is made of.
func imageOf(item container.Summary, whole bool) string {
	if dir := item.HostConfig.Annotations[rootfsAnnotation]; item.Image == "" && dir != "" {
		return "rootfs:" + dir
	}
	if item.Image == "" {
		return "<no image>"
	}
	if image, digest, ok := strings.Cut(item.Image, "@"); ok && digest != "" && !whole {
		return image
	}
	if id, ok := strings.CutPrefix(item.Image, "sha256:"); ok && !whole {
		return shortID(id, false)
	}
	return item.Image
}

// names drops the slash that the API puts in front, and the names that other
// containers have for this one.
func names(all []string, whole bool) string {
	var shown []string
	for _, name := range all {
		name = strings.TrimPrefix(name, "/")
		if whole || !strings.Contains(name, "/") {
			shown = append(shown, name)
		}
	}
	return strings.Join(shown, ",")
}

func networkNames(settings *container.NetworkSettingsSummary) string {
	if settings == nil {
		return ""
	}
	return strings.Join(slices.Sorted(maps.Keys(settings.Networks)), ",")
}

func mountNames(mounts []container.MountPoint, whole bool) string {
	var shown []string
	for _, point := range mounts {
		name := point.Name
		if name == "" {
			name = point.Source
		}
		if !whole {
			name = ellipsis(name, 15)
		}
		shown = append(shown, name)
	}
	return strings.Join(shown, ",")
}

func localVolumes(mounts []container.MountPoint) string {
	count := 0
	for _, point := range mounts {
		if point.Driver == "local" {
			count++
		}
	}
	return strconv.Itoa(count)
}

func sizeOf(item container.Summary) string {
	size := units.HumanSizeWithPrecision(float64(item.SizeRw), 3)
	if item.SizeRootFs > 0 {
		size += fmt.Sprintf(" (virtual %s)", units.HumanSizeWithPrecision(float64(item.SizeRootFs), 3))
	}
	return size
}

// span is a run of ports that follow each other, the same on both sides.
type span struct {
	ip          netip.Addr // zero: the ports are exposed only
	proto       string
	first, last uint16
}

// portsOf writes ports as 80-82/tcp, 0.0.0.0:8080->80/tcp. As with Docker,
// ports that are the same outside and inside come first, neighbours in one
// term, a run that ended before one that was still open; those that differ
// follow, one term each.
func portsOf(ports []container.PortSummary) string {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), a.IP.Compare(b.IP),
			cmp.Compare(a.PublicPort, b.PublicPort), cmp.Compare(a.Type, b.Type))
	})
	var open []span // one for each address and protocol: the run that may still grow
	var ended, differ []string
	for _, port := range ports {
		if port.IP.IsValid() && port.PublicPort != port.PrivatePort {
			differ = append(differ, fmt.Sprintf("%s->%d/%s", netip.AddrPortFrom(port.IP, port.PublicPort), port.PrivatePort, port.Type))
			continue
		}
		run := span{ip: port.IP, proto: port.Type, first: port.PrivatePort, last: port.PrivatePort}
		at := slices.IndexFunc(open, func(one span) bool { return one.ip == run.ip && one.proto == run.proto })
		switch {
		case at < 0:
			open = append(open, run)
		case open[at].last == run.first || open[at].last+1 == run.first:
			open[at].last = run.last
		default:
			ended = append(ended, open[at].String())
			open[at] = run
		}
	}
	for _, one := range open {
		ended = append(ended, one.String())
	}
	return strings.Join(append(ended, differ...), ", ")
}

func (s span) String() string {
	run := strconv.Itoa(int(s.first))
	if s.last != s.first {
		run += "-" + strconv.Itoa(int(s.last))
	}
	switch {
	case !s.ip.IsValid():
		return run + "/" + s.proto
	case s.ip.Is6():
		return "[" + s.ip.String() + "]:" + run + "->" + run + "/" + s.proto
	default:
		return s.ip.String() + ":" + run + "->" + run + "/" + s.proto
	}
}
