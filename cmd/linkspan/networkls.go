package main

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan"
)

// networkRow is a line of network ls: texts, under the names that Docker's
// templates have for them.
type networkRow struct {
	CreatedAt string
	Driver    string
	ID        string
	IPv4      string
	IPv6      string
	Internal  string
	Labels    string
	Name      string
	Scope     string

	labels map[string]string
}

// Label is for templates: {{.Label "key"}}.
func (r networkRow) Label(key string) string { return r.labels[key] }

func networkListing() listing {
	return listing{
		head: header{
			"CreatedAt": "CREATED AT", "Driver": "DRIVER", "ID": "NETWORK ID", "IPv4": "IPV4", "IPv6": "IPV6",
			"Internal": "INTERNAL", "Labels": "LABELS", "Name": "NAME", "Scope": "SCOPE",
		},
		table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
		quiet: "{{.ID}}",
	}
}

func newNetworkLs(a *app) *cobra.Command {
	var filters []string
	var format string
	var noTrunc, quiet bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List networks",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "provide filter values (e.g. \"driver=bridge\")")
	cmd.Flags().StringVar(&format, "format", "", "format output: 'table', 'table TEMPLATE', 'json' or a Go `template`")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "do not truncate the output")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only display network IDs")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		terms, err := parseFilters(filters)
		if err != nil {
			return err
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		listed, err := daemon.NetworkList(cmd.Context(), client.NetworkListOptions{Filters: terms})
		if err != nil {
			return err
		}
		return print(a.out, networkListing(), format, quiet, networkRows(listed.Items, noTrunc))
	}
	return cmd
}

func networkRows(items []network.Summary, whole bool) []networkRow {
	slices.SortFunc(items, func(a, b network.Summary) int { return natural(a.Name, b.Name) })
	rows := make([]networkRow, len(items))
	for i, item := range items {
		rows[i] = networkRow{
			CreatedAt: createdAt(item.Created),
			Driver:    item.Driver,
			ID:        shortID(item.ID, whole),
			IPv4:      strconv.FormatBool(item.EnableIPv4),
			IPv6:      strconv.FormatBool(item.EnableIPv6),
			Internal:  strconv.FormatBool(item.Internal),
			Labels:    joinLabels(item.Labels),
			Name:      item.Name,
			Scope:     item.Scope,
			labels:    item.Labels,
		}
	}
	return rows
}

func createdAt(t time.Time) string { return t.String() }

func shortID(id string, whole bool) string {
	if whole {
		return id
	}
	return linkspan.ID(id).Short()
}

func joinLabels(labels map[string]string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ",")
}

// natural compares names as a reader does: net2 before net10.
func natural(a, b string) int {
	for a != "" && b != "" {
		digitsA, digitsB := leadingDigits(a), leadingDigits(b)
		if digitsA > 0 && digitsB > 0 {
			numberA, numberB := strings.TrimLeft(a[:digitsA], "0"), strings.TrimLeft(b[:digitsB], "0")
			if order := cmp.Or(cmp.Compare(len(numberA), len(numberB)), cmp.Compare(numberA, numberB)); order != 0 {
				return order
			}
			if digitsA != digitsB {
				return cmp.Compare(digitsA, digitsB)
			}
			a, b = a[digitsA:], b[digitsB:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func leadingDigits(s string) int {
	return len(s) - len(strings.TrimLeft(s, "0123456789"))
}

// filterQuery writes filters as the API wants them in a query.
func filterQuery(values []string) (url.Values, error) {
	terms, err := parseFilters(values)
	if err != nil || len(terms) == 0 {
		return nil, err
	}
	encoded, err := json.Marshal(terms)
	if err != nil {
		return nil, err
	}
	return url.Values{"filters": {string(encoded)}}, nil
}
