package main

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each verb asks for what its words say.
func TestImageAndVolumeVerbs(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	volume := `{"Name":"data","Driver":"local","Mountpoint":"/m","Labels":{},"Options":{},"Scope":"local"}`
	daemon := newFake(t, map[string]answer{
		"POST /images/a/tag":                    {status: 201},
		"DELETE /images/a":                      {body: `[{"Untagged":"a:latest"},{"Deleted":"sha256:1"}]`},
		"GET /images/a/history":                 {body: `[{"Id":"sha256:0123456789abcdef","CreatedBy":"x","Size":1000,"Tags":["a:latest"]}]`},
		"POST /images/prune":                    {body: `{"ImagesDeleted":[{"Deleted":"sha256:1"}],"SpaceReclaimed":1000}`},
		"GET /images/get":                       {body: "archive"},
		"POST /images/docker.io/library/a/push": {body: `{"status":"The push refers to repository [docker.io/library/a]"}`},
		"POST /commit":                          {status: 201, body: `{"Id":"sha256:2"}`},
		"GET /containers/c/export":              {body: "files"},
		"GET /containers/c/changes":             {body: `[{"Path":"/a","Kind":1},{"Path":"/b","Kind":2},{"Path":"/c","Kind":0}]`},
		"POST /volumes/create":                  {status: 201, body: volume},
		"GET /volumes":                          {body: `{"Volumes":[` + volume + `]}`},
		"GET /volumes/data":                     {body: volume},
		"DELETE /volumes/data":                  {status: 204},
		"POST /volumes/prune":                   {body: `{"VolumesDeleted":["data"],"SpaceReclaimed":1}`},
	})
	file := filepath.Join(t.TempDir(), "archive")
	for line, want := range map[string]string{
		"tag a b:1":                              "",
		"rmi -f a":                               "Untagged: a:latest\nDeleted: sha256:1\n",
		"image history a":                        "0123456789ab",
		"image prune -a -f":                      "Deleted Images:\ndeleted: sha256:1\nTotal reclaimed space: 1kB\n",
		"save -o " + file + " a b":               "",
		"save a":                                 "archive",
		"push a":                                 "The push refers to repository [docker.io/library/a]\n",
		"commit -m x -c CMD=y c d":               "sha256:2\n",
		"export c":                               "files",
		"diff c":                                 "A /a\nD /b\nC /c\n",
		"volume create -d local data":            "data\n",
		"volume ls -q":                           "data\n",
		"volume inspect -f {{.Mountpoint}} data": "/m\n",
		"volume rm -f data":                      "data\n",
		"volume prune -a -f":                     "Deleted Volumes:\ndata\n\nTotal reclaimed space: 1B\n",
	} {
		var out, complaints bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, err: &complaints, getenv: os.LookupEnv, host: ""}
		if status := a.run(t.Context(), append([]string{"-H", daemon.host}, strings.Fields(line)...)); status != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%s: status %d: %q, want %q; %s", line, status, &out, want, &complaints)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "archive" {
		t.Error(string(text), err)
	}
	var asked []string
	for _, r := range daemon.requests() {
		asked = append(asked, r.Method+" "+r.URI)
	}
	for _, want := range []string{"tag?repo=docker.io%2Flibrary%2Fb&tag=1", "force=1", "names=a&names=b", "container=c", "dangling"} {
		if !slices.ContainsFunc(asked, func(r string) bool { return strings.Contains(r, want) }) {
			t.Errorf("nothing asks for %s: %s", want, strings.Join(asked, "\n"))
		}
	}
}

func TestCp(t *testing.T) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o640, Size: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][2]string{"c:/a": {"c", "/a"}, "/c:/a": {"", "/c:/a"}, "./c:a": {"", "./c:a"}, "c": {"", "c"}, "c:a:b": {"c", "a:b"}} {
		if name, path := ofContainer(text); name != want[0] || path != want[1] {
			t.Errorf("%s: %q %q", text, name, path)
		}
	}
	a := &app{in: strings.NewReader(""), out: &bytes.Buffer{}, err: &bytes.Buffer{}, getenv: os.LookupEnv}
	for _, line := range []string{"cp a b", "cp a:/x b:/y", "cp a: b"} {
		if a.run(t.Context(), strings.Fields(line)) == 0 {
			t.Errorf("%s is taken", line)
		}
	}
}

func TestMountFlags(t *testing.T) {
	for text, want := range map[string]string{
		"type=volume,src=v,dst=/a,volume-nocopy,volume-subpath=x,volume-label=a=b": `v /a true x map[a:b]`,
		"type=volume,src=v,dst=/a,volume-nocopy=false":                             `v /a false  map[]`,
	} {
		list, err := mounts([]string{text})
		if err != nil {
			t.Fatal(err)
		}
		m := list[0]
		got := strings.Join([]string{m.Source, m.Target, boolText(m.VolumeOptions.NoCopy), m.VolumeOptions.Subpath, mapText(m.VolumeOptions.Labels)}, " ")
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string][3]bool{
		"type=bind,src=/a,dst=/b,bind-recursive=disabled":    {true, false, false},
		"type=bind,src=/a,dst=/b,bind-recursive=writable":    {false, true, false},
		"type=bind,src=/a,dst=/b,ro,bind-recursive=readonly": {false, false, true},
	} {
		list, err := mounts([]string{text})
		if err != nil {
			t.Fatal(err)
		}
		if o := list[0].BindOptions; [3]bool{o.NonRecursive, o.ReadOnlyNonRecursive, o.ReadOnlyForceRecursive} != want {
			t.Errorf("%s: %+v", text, o)
		}
	}
	for _, text := range []string{"type=bind,src=/a,dst=/b,bind-recursive=x", "type=volume,dst=/a,volume-nocopy=x", "type=bind,src=/a,dst=/b,ro=x"} {
		if _, err := mounts([]string{text}); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

func mapText(m map[string]string) string {
	var list []string
	for key, value := range m {
		list = append(list, key+":"+value)
	}
	return "map[" + strings.Join(list, " ") + "]"
}
