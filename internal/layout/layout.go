// Package layout holds the import policy of the module as a table, and checks
// source files against it.
//
// Packages form layers: kernel knows Linux, op knows changes, the records know
// themselves, the controller knows them all. An import that points the wrong
// way compiles just as well as a right one, so nothing but a test stops it.
// To see what a package draws in, and through which import:
//
//	go list -deps ./network | grep linkspan
//	go mod why github.com/vishvananda/netlink
//
// The table is a statement of policy. A build that breaks it is mended by
// moving code, not by widening the table; a new package is a new line.
//
//	kernel ◄── op ◄── network, endpoint, sandbox ◄── drivers, firewall, store ◄── controller ◄── api ◄── cmd
//	root   ◄── everything
package layout

import (
	"cmp"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is the path of the module that the policy is about.
const Module = "github.com/linkspan/linkspan"

// Policy says who may import what. Package names are paths relative to the
// module, "." being its root. A name that ends in "/..." stands for the
// package and all below it; the longest name that fits a package counts.
type Policy struct {
	// Allowed lists for every package those of ours that it may import. What
	// an allowed package may import is allowed as well.
	Allowed map[string][]string
	// Tests lists what test files of any package may import on top of that.
	Tests []string
	// Owners lists for an outside package, and all below it, the packages
	// of ours that may import it. Test files are held to this only for
	// the packages in Everywhere.
	Owners map[string][]string
	// Everywhere lists the outside packages whose owners bind test files too.
	Everywhere []string
}

// House returns the policy of this repository.
func House() Policy {
	records := []string{"network", "endpoint", "sandbox"}
	oneDriver := []string{"drivers", "kernel"}
	return Policy{
		Allowed: map[string][]string{
			".":                     {},
			"kernel":                {"."},
			"op":                    {"kernel"},
			"network":               {"op", "ipam"},
			"endpoint":              {"op"},
			"sandbox":               {"op"},
			"ipam":                  {"."},
			"dns":                   {"."},
			"dns/resolvconf":        {"."},
			"drivers":               append([]string{"op", "firewall"}, records...),
			"drivers/driverstest":   {"drivers", "kernel", "internal/nstest"},
			"drivers/bridge":        oneDriver,
			"drivers/host":          oneDriver,
			"drivers/none":          oneDriver,
			"drivers/container":     oneDriver,
			"drivers/macvlan":       oneDriver,
			"drivers/overlay":       append([]string{"drivers/bridge"}, oneDriver...),
			"drivers/remote":        append([]string{"plugin", "plugin/wire"}, oneDriver...),
			"firewall":              append([]string{"op"}, records...),
			"firewall/firewalltest": {"firewall", "internal/nstest"},
			"firewall/choice":       {"firewall", "firewall/nftables", "firewall/iptables"},
			"firewall/nftables":     {"firewall"},
			"firewall/iptables":     {"firewall"},
			"store":                 append([]string{"op", "ipam"}, records...),
			"store/cluster":         {"network", "ipam"},
			"store/etcdtest":        {"internal/nstest"},
			"doctor":                {"kernel", "ipam", "firewall/choice"},
			"peering":               {"drivers", "store/cluster"},
			"controller":            {"doctor", "peering", "store", "store/cluster", "drivers", "firewall", "firewall/nftables", "firewall/iptables", "firewall/choice", "ipam", "dns", "dns/resolvconf"},
			"runtime/...":           {"kernel", "sandbox"},
			"plugin/...":            {"drivers", "ipam", "plugin/wire"},
			"plugin/plugintest":     {"internal/nstest"},
			"plugin/wire":           {},
			"plugin/sdk":            {"plugin/wire"},
			"plugin/check":          {"plugin", "plugin/wire"},
			"plugin/export":         {"drivers", "ipam", "peering", "store/cluster", "plugin/sdk", "plugin/wire"},
			"api/...":               {"controller", "runtime/..."},
			"lab/...":               {"op"},
			"lab/compare":           append([]string{"op", "ipam", "drivers/bridge", "firewall", "firewall/nftables", "lab/topology"}, records...),
			"cmd/linkspan":          {"*"},
			"cmd/linkspan-shim":     {"runtime/...", "kernel"},
			"internal/nstest":       {"kernel"},
			"internal/layout":       {},
			"bench":                 {"kernel"},
			"bench/overlay":         {"store/cluster"},
		},
		Tests: []string{
			"internal/nstest", "store/etcdtest", "firewall/firewalltest", "drivers/driverstest", "drivers/bridge", "drivers/host", "drivers/macvlan", "drivers/none", "drivers/container", "drivers/overlay", "drivers/remote", "plugin/...",
		},
		Owners: map[string][]string{
			"github.com/vishvananda/netlink": {"kernel", "op", "firewall/..."},
			"github.com/mdlayher/netlink":    {"kernel", "op", "firewall/..."},
			"github.com/google/nftables":     {"kernel", "op", "firewall/..."},
			"github.com/vishvananda/netns":   {"kernel", "internal/nstest"},
			"github.com/coreos/go-iptables":  {"firewall/iptables"},
			"github.com/miekg/dns":           {"dns"},
			"github.com/fsnotify/fsnotify":   {"dns/resolvconf"},
			"github.com/gorilla/mux":         {"api/...", "plugin/..."},
			"go.etcd.io/etcd":                {"store/..."},
			"go.etcd.io/bbolt":               {"store"},
			"github.com/moby/profiles":       {"runtime/..."},
			"github.com/containerd/cgroups":  {"runtime/..."},
			"github.com/spf13/cobra":         {"cmd/linkspan"},
			"github.com/gopacket/gopacket":   {"lab/..."},
			"github.com/goccy/go-yaml":       {"lab/...", "cmd/linkspan"},
			"github.com/moby/moby/client":    {"cmd/linkspan", "lab/..."},
		},
		Everywhere: []string{"github.com/vishvananda/netns"},
	}
}

// Import is one line of an import block.
type Import struct {
	Package string         // the importing package, relative to the module
	Path    string         // what is imported, as written
	Pos     token.Position // of the line, file name relative to the module
	Test    bool           // the file is a test file
}

// Imports reads the import blocks of all Go files under root, whatever their
// build tags say. Folders that the go command ignores (names that start with
// a dot or an underscore, testdata) and modules within the module are left out.
func Imports(root fs.FS) ([]Import, error) {
	var found []Import
	fset := token.NewFileSet()
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return enter(root, name)
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, name, source, parser.ImportsOnly)
		if err != nil {
			return fmt.Errorf("reading imports: %w", err)
		}
		found = append(found, Import{Package: path.Dir(name), Test: true, Pos: token.Position{Filename: name, Line: 1}})
		for _, spec := range file.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("reading imports of %s: %w", name, err)
			}
			found = append(found, Import{
				Package: path.Dir(name),
				Path:    target,
				Pos:     fset.Position(spec.Pos()),
				Test:    strings.HasSuffix(name, "_test.go"),
			})
		}
		return nil
	})
	return found, err
}

// enter returns fs.SkipDir for a folder that holds no package of the module.
func enter(root fs.FS, name string) error {
	base := path.Base(name)
	if name == "." {
		return nil
	}
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" {
		return fs.SkipDir
	}
	if _, err := fs.Stat(root, filepath.ToSlash(path.Join(name, "go.mod"))); err == nil {
		return fs.SkipDir
	}
	return nil
}

// Check returns one sentence for each breach of the policy, in the order of
// the files. Safe for concurrent use: it reads only.
func (p Policy) Check(imports []Import) []string {
	var faults []string
	unknown := map[string]bool{}
	for _, imp := range imports {
		row, ok := match(imp.Package, keys(p.Allowed))
		if !ok {
			if !unknown[imp.Package] {
				unknown[imp.Package] = true
				faults = append(faults, fmt.Sprintf("%s: package %s has no line in the table: add one to internal/layout", imp.Pos.Filename, imp.Package))
			}
			continue
		}
		if fault := p.fault(imp, row); fault != "" {
			faults = append(faults, fmt.Sprintf("%s:%d: import %q: %s", imp.Pos.Filename, imp.Pos.Line, imp.Path, fault))
		}
	}
	return faults
}

// fault says what is wrong with one import of a package of the given row.
func (p Policy) fault(imp Import, row string) string {
	if ours, ok := relative(imp.Path); ok {
		// Files of one subtree are of one mind, and a test may import what it tests.
		if target, ok := match(ours, keys(p.Allowed)); ok && target == row {
			return ""
		}
		allowed := p.closure(row)
		if imp.Test {
			for _, name := range p.Tests {
				allowed[name] = true
				for more := range p.closure(name) {
					allowed[more] = true
				}
			}
		}
		if allowed["*"] || allowed[ours] {
			return ""
		}
		if _, ok := match(ours, sorted(allowed)); ok {
			return ""
		}
		return fmt.Sprintf("%s may import only %s", imp.Package, list(sorted(allowed)))
	}
	owned, ok := match(imp.Path, withSubtrees(p.Owners))
	if !ok {
		return ""
	}
	outside := strings.TrimSuffix(owned, "/...")
	if imp.Test && !slices.Contains(p.Everywhere, outside) {
		return ""
	}
	if _, ok := match(imp.Package, p.Owners[outside]); ok {
		return ""
	}
	return fmt.Sprintf("it belongs to %s, not to %s", list(p.Owners[outside]), imp.Package)
}

// closure returns all that a row of the table may import.
func (p Policy) closure(row string) map[string]bool {
	all := map[string]bool{".": true}
	todo := []string{row}
	for len(todo) > 0 {
		from := todo[0]
		todo = todo[1:]
		name, ok := match(from, keys(p.Allowed))
		if !ok {
			continue
		}
		for _, next := range p.Allowed[name] {
			if !all[next] {
				all[next] = true
				todo = append(todo, next)
			}
		}
	}
	return all
}

// match returns the longest of the patterns that fits name.
func match(name string, patterns []string) (string, bool) {
	best, found := "", false
	for _, pattern := range patterns {
		tree, isTree := strings.CutSuffix(pattern, "/...")
		fits := name == tree || isTree && strings.HasPrefix(name, tree+"/") || name == pattern
		if fits && (!found || len(pattern) > len(best)) {
			best, found = pattern, true
		}
	}
	return best, found
}

// relative cuts the module's path off an import path.
func relative(importPath string) (string, bool) {
	if importPath == Module {
		return ".", true
	}
	return strings.CutPrefix(importPath, Module+"/")
}

func keys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func sorted(set map[string]bool) []string { return keys(set) }

func withSubtrees(owners map[string][]string) []string {
	trees := keys(owners)
	for i := range trees {
		trees[i] += "/..."
	}
	return trees
}

func list(names []string) string {
	return cmp.Or(strings.Join(names, ", "), "nobody")
}
