package layout

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestRepository(t *testing.T) {
	imports, err := Imports(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(imports) < 10 {
		t.Fatalf("found %d import lines only: is ../.. the root of the module?", len(imports))
	}
	for _, fault := range House().Check(imports) {
		t.Error(fault)
	}
}

func TestTableNamesKnownPackages(t *testing.T) {
	policy := House()
	for row, allowed := range policy.Allowed {
		for _, name := range allowed {
			if _, ok := match(name, keys(policy.Allowed)); !ok && name != "*" {
				t.Errorf("%s may import %s, which has no line of its own", row, name)
			}
		}
		if name := strings.TrimSuffix(row, "/..."); row != "cmd/linkspan" && policy.closure(row)[name] && row != "." {
			t.Errorf("%s may import itself by way of others: the table has a cycle", row)
		}
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name, file, source string
		want               []string
	}{
		{"downwards", "op/op.go", `import "github.com/linkspan/linkspan/kernel"`, nil},
		{"far downwards", "controller/verbs.go", `import "github.com/linkspan/linkspan/kernel"`, nil},
		{"root from anywhere", "dns/zone.go", `import "github.com/linkspan/linkspan"`, nil},
		{
			"upwards", "kernel/host.go", "\nimport (\n\t\"fmt\"\n\t\"github.com/linkspan/linkspan/op\"\n)",
			[]string{`kernel/host.go:5: import "github.com/linkspan/linkspan/op": kernel may import only .`},
		},
		{
			"records meet", "network/n.go", `import "github.com/linkspan/linkspan/endpoint"`,
			[]string{`network/n.go:2: import "github.com/linkspan/linkspan/endpoint": network may import only ., ipam, kernel, op`},
		},
		{
			"outside package of others", "sandbox/s.go", `import "github.com/vishvananda/netlink/nl"`,
			[]string{`sandbox/s.go:2: import "github.com/vishvananda/netlink/nl": it belongs to kernel, op, firewall/..., not to sandbox`},
		},
		{"outside package of one's own", "firewall/nftables/t.go", `import "github.com/google/nftables/expr"`, nil},
		{"similar name", "sandbox/s.go", `import "github.com/vishvananda/netlinkish"`, nil},
		{"test of other's package", "sandbox/s_test.go", `import "github.com/vishvananda/netlink"`, nil},
		{
			"test that moves threads", "sandbox/s_test.go", `import "github.com/vishvananda/netns"`,
			[]string{`sandbox/s_test.go:2: import "github.com/vishvananda/netns": it belongs to kernel, internal/nstest, not to sandbox`},
		},
		{"test machine in a test", "drivers/bridge/b_test.go", `import "github.com/linkspan/linkspan/internal/nstest"`, nil},
		{
			"test machine in the product", "drivers/bridge/b.go", `import "github.com/linkspan/linkspan/internal/nstest"`,
			[]string{`drivers/bridge/b.go:2: import "github.com/linkspan/linkspan/internal/nstest": drivers/bridge may import only ., drivers, endpoint, firewall, ipam, kernel, network, op, sandbox`},
		},
		{"subtree", "runtime/cgroup/c.go", `import "github.com/linkspan/linkspan/runtime/shim"`, nil},
		{"subtree from above", "cmd/linkspan/main.go", `import "github.com/linkspan/linkspan/runtime/shim"`, nil},
		{
			"package without a line", "util/u.go", `import "fmt"`,
			[]string{"util/u.go: package util has no line in the table: add one to internal/layout"},
		},
		{
			"package without a line or an import", "util/u.go", "",
			[]string{"util/u.go: package util has no line in the table: add one to internal/layout"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := fstest.MapFS{test.file: {Data: []byte("package x\n" + test.source + "\n")}}
			imports, err := Imports(root)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(test.want, House().Check(imports)); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestImportsLeavesOut(t *testing.T) {
	root := fstest.MapFS{
		"a.go":               {Data: []byte("package a\nimport \"fmt\"\n")},
		"tools/go.mod":       {Data: []byte("module m\n")},
		"tools/b.go":         {Data: []byte("package b\nimport \"os\"\n")},
		"x/testdata/c.go":    {Data: []byte("not Go at all")},
		".hidden/d.go":       {Data: []byte("not Go at all")},
		"_ignored/deep/e.go": {Data: []byte("not Go at all")},
	}
	imports, err := Imports(root)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, imp := range imports {
		if imp.Path != "" {
			paths = append(paths, imp.Path)
		}
	}
	if diff := gocmp.Diff([]string{"fmt"}, paths); diff != "" {
		t.Errorf("imports (-want +got):\n%s", diff)
	}
}
