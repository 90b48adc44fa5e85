package main

import (
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
		o.Size = o.Size || strings.Contains(format, ".Size")
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		listed, err := daemon.ContainerList(cmd.Context(), o)
		if err != nil {
			return err
		}
		return print(a.out, containerListing(o.Size), format, quiet, containerRows(listed.Items, noTrunc, time.Now()))
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

// span is a run of ports that follow each other on both sides.
type span struct {
	ip            netip.Addr
	proto         string
	public, first uint16 // public is 0 for a port that is exposed only
	count         uint16
}

// portsOf writes ports as 0.0.0.0:8000-8002->80-82/tcp, neighbours together.
func portsOf(ports []container.PortSummary) string {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, comparePorts)
	var spans []span
	for _, port := range ports {
		if last := len(spans) - 1; last >= 0 && spans[last].takes(port) {
			spans[last].count++
			continue
		}
		spans = append(spans, span{ip: port.IP, proto: port.Type, public: port.PublicPort, first: port.PrivatePort, count: 1})
	}
	// Exposed ports come last, as a reader looks for what can be reached.
	slices.SortStableFunc(spans, func(a, b span) int { return boolOrder(a.public == 0, b.public == 0) })
	texts := make([]string, len(spans))
	for i, s := range spans {
		texts[i] = s.String()
	}
	return strings.Join(texts, ", ")
}

func comparePorts(a, b container.PortSummary) int {
	for _, order := range []int{
		boolOrder(a.PublicPort == 0, b.PublicPort == 0),
		strings.Compare(a.Type, b.Type),
		a.IP.Compare(b.IP),
		int(a.PrivatePort) - int(b.PrivatePort),
		int(a.PublicPort) - int(b.PublicPort),
	} {
		if order != 0 {
			return order
		}
	}
	return 0
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

func (s span) takes(port container.PortSummary) bool {
	if port.Type != s.proto || port.IP != s.ip || port.PrivatePort != s.first+s.count {
		return false
	}
	if s.public == 0 {
		return port.PublicPort == 0
	}
	return port.PublicPort == s.public+s.count
}

func (s span) String() string {
	inside := spanOf(s.first, s.count) + "/" + s.proto
	if s.public == 0 {
		return inside
	}
	host := spanOf(s.public, s.count)
	if s.ip.IsValid() {
		if s.ip.Is6() {
			host = "[" + s.ip.String() + "]:" + host
		} else {
			host = s.ip.String() + ":" + host
		}
	}
	return host + "->" + inside
}

func spanOf(first, count uint16) string {
	if count == 1 {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, first+count-1)
}
