package api

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/linkspan/linkspan/controller"
)

// shapes are the types that bodies and answers come in, by the names that the
// description has for them.
func shapes() map[string]any {
	return map[string]any{
		"AuthConfig": registry.AuthConfig{}, "AuthResponse": registry.AuthResponse{}, "Cable": controller.Cable{},
		"ContainerConfig": container.Config{}, "ContainerCreateRequest": container.CreateRequest{}, "ContainerCreateResponse": container.CreateResponse{},
		"ContainerInspectResponse": container.InspectResponse{}, "ContainerPruneReport": container.PruneReport{}, "ContainerSummary": container.Summary{},
		"ContainerUpdateResponse": container.UpdateResponse{}, "DeleteResponse": apiimage.DeleteResponse{}, "DiskUsage": system.DiskUsage{},
		"DistributionInspect": registry.DistributionInspect{}, "ErrorResponse": common.ErrorResponse{}, "ExecCreateRequest": container.ExecCreateRequest{},
		"ExecInspectResponse": container.ExecInspectResponse{}, "ExecStartRequest": container.ExecStartRequest{}, "FilesystemChange": container.FilesystemChange{},
		"HistoryResponseItem": apiimage.HistoryResponseItem{}, "IDResponse": common.IDResponse{}, "ImageInspectResponse": apiimage.InspectResponse{},
		"ImagePruneReport": apiimage.PruneReport{}, "ImageSummary": apiimage.Summary{}, "Info": system.Info{}, "JSONMessage": jsonstream.Message{},
		"ListResponse": apivolume.ListResponse{}, "Message": events.Message{}, "NetworkConnectRequest": apinetwork.ConnectRequest{},
		"NetworkCreateRequest": apinetwork.CreateRequest{}, "NetworkCreateResponse": apinetwork.CreateResponse{}, "NetworkDisconnectRequest": apinetwork.DisconnectRequest{},
		"NetworkInspect": apinetwork.Inspect{}, "NetworkPruneReport": apinetwork.PruneReport{}, "NetworkSummary": apinetwork.Network{},
		"NetworkUpdate": NetworkUpdate{}, "Operation": Operation{}, "StepLine": StepLine{}, "Diagnosis": Diagnosis{}, "Plugin": Plugin{}, "GivenUp": GivenUp{}, "Reapplied": Reapplied{}, "PortsRequest": PortsRequest{}, "PublishedPort": PublishedPort{}, "Question": question{},
		"StatsResponse": container.StatsResponse{}, "TopResponse": container.TopResponse{}, "UpdateConfig": container.UpdateConfig{},
		"VersionResponse": system.VersionResponse{}, "Volume": apivolume.Volume{}, "VolumeCreateRequest": apivolume.CreateRequest{},
		"VolumePruneReport": apivolume.PruneReport{}, "WaitResponse": container.WaitResponse{},
	}
}

const mark = "    # From here on written by the test.\n"

// The schemas are those of the Go types: a field that a library gains or loses
// shows here.
func TestOpenAPISchemas(t *testing.T) {
	head, tail, ok := bytes.Cut(openAPI, []byte(mark))
	if !ok {
		t.Fatal("the mark in front of the schemas is missing")
	}
	w := schemas{names: map[reflect.Type]string{}}
	todo := map[string]reflect.Type{}
	for name, v := range shapes() {
		w.names[reflect.TypeOf(v)] = name
		todo[name] = reflect.TypeOf(v)
	}
	want := w.all(todo)
	if *update {
		must(t, os.WriteFile("openapi.yaml", slices.Concat(head, []byte(mark), []byte(want)), 0o644))
		return
	}
	if want != string(tail) {
		t.Error("the schemas in openapi.yaml are not those of the Go types: go test ./api -run TestOpenAPI -update, and look at the difference")
	}
}

// schemas writes Go types as JSON schemas.
type schemas struct {
	names map[reflect.Type]string
	more  map[string]reflect.Type
}

func (w *schemas) all(todo map[string]reflect.Type) string {
	written := map[string]string{}
	for len(todo) > 0 {
		w.more = map[string]reflect.Type{}
		for name, kind := range todo {
			written[name] = w.object(kind)
		}
		maps.DeleteFunc(w.more, func(name string, _ reflect.Type) bool { _, done := written[name]; return done })
		todo = w.more
	}
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(written)) {
		fmt.Fprintf(&out, "    %s:\n%s", name, written[name])
	}
	return out.String()
}

func (w *schemas) object(kind reflect.Type) string {
	var out strings.Builder
	out.WriteString("      type: object\n")
	fields := map[string]string{}
	w.fields(kind, fields)
	if len(fields) > 0 {
		out.WriteString("      properties:\n")
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		key := name
		if !regexp.MustCompile(`^\w+$`).MatchString(name) {
			key = fmt.Sprintf("%q", name)
		}
		fmt.Fprintf(&out, "        %s: %s\n", key, fields[name])
	}
	return out.String()
}

func (w *schemas) fields(kind reflect.Type, into map[string]string) {
	for i := range kind.NumField() {
		field := kind.Field(i)
		name, rest, _ := strings.Cut(field.Tag.Get("json"), ",")
		embedded := field.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		switch {
		case name == "-":
		case field.Anonymous && name == "" && embedded.Kind() == reflect.Struct:
			w.fields(embedded, into)
		case !field.IsExported():
		default:
			if name == "" {
				name = field.Name
			}
			into[name] = w.schema(field.Type, rest)
		}
	}
}

var (
	textual  = reflect.TypeFor[encoding.TextMarshaler]()
	speaking = reflect.TypeFor[json.Marshaler]()
)

func (w *schemas) schema(kind reflect.Type, options string) string {
	is := func(i reflect.Type) bool { return kind.Implements(i) || reflect.PointerTo(kind).Implements(i) }
	switch {
	case kind == reflect.TypeFor[time.Time]():
		return "{type: string, format: date-time}"
	case kind == reflect.TypeFor[time.Duration]():
		return "{type: integer, format: int64, description: nanoseconds}"
	case kind.Kind() == reflect.Pointer:
		return w.schema(kind.Elem(), options)
	case is(textual), strings.Contains(options, "string"):
		return "{type: string}"
	case is(speaking):
		return "{}"
	}
	switch kind.Kind() {
	case reflect.Bool:
		return "{type: boolean}"
	case reflect.String:
		return "{type: string}"
	case reflect.Float32, reflect.Float64:
		return "{type: number}"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "{type: integer}"
	case reflect.Slice, reflect.Array:
		if kind.Elem().Kind() == reflect.Uint8 && kind.Kind() == reflect.Slice {
			return "{type: string, format: byte}"
		}
		return "{type: array, items: " + w.schema(kind.Elem(), "") + "}"
	case reflect.Map:
		return "{type: object, additionalProperties: " + w.schema(kind.Elem(), "") + "}"
	case reflect.Struct:
		return w.reference(kind)
	}
	return "{}"
}

func (w *schemas) reference(kind reflect.Type) string {
	name, ok := w.names[kind]
	if !ok {
		if kind.Name() == "" || kind.NumField() == 0 {
			return "{type: object}"
		}
		name = kind.Name()
		folder := kind.PkgPath()[strings.LastIndex(kind.PkgPath(), "/")+1:]
		if prefix := strings.ToUpper(folder[:1]) + folder[1:]; !strings.HasPrefix(name, prefix) && folder != "api" {
			name = prefix + name
		}
		name = regexp.MustCompile(`\W`).ReplaceAllString(name, "")
		w.names[kind] = name
	}
	w.more[name] = kind
	return "{$ref: '#/components/schemas/" + name + "'}"
}

// description is what of the document the tests look at.
type description struct {
	OpenAPI    string
	Paths      map[string]map[string]any
	Components map[string]map[string]any
}

type operation struct {
	OperationID string `yaml:"operationId"`
	Summary     string
	Tags        []string
	RequestBody any `yaml:"requestBody"`
	Responses   map[string]any
}

// operationOf reads a part of the document.
func operationOf(t *testing.T, part any) operation {
	t.Helper()
	text, err := yaml.Marshal(part)
	must(t, err)
	var o operation
	must(t, yaml.Unmarshal(text, &o))
	return o
}

func described(t *testing.T) description {
	t.Helper()
	var d description
	must(t, yaml.Unmarshal(openAPI, &d))
	return d
}

// Every route is described, and nothing else is.
func TestOpenAPIRoutes(t *testing.T) {
	d := described(t)
	pattern := regexp.MustCompile(`\{(\w+):[^}]*\}`)
	served, told := map[string]bool{}, map[string]bool{}
	for _, route := range Routes() {
		served[route.Method+" "+pattern.ReplaceAllString(route.Path, "{$1}")] = true
	}
	ids := map[string]string{}
	for path, methods := range d.Paths {
		for method, node := range methods {
			if method == "parameters" {
				continue
			}
			name := strings.ToUpper(method) + " " + path
			told[name] = true
			o := operationOf(t, node)
			if o.OperationID == "" || o.Summary == "" || len(o.Tags) != 1 || len(o.Responses) < 2 {
				t.Errorf("%s is described by %+v: it needs an operationId, a summary, a tag and what it answers", name, o)
			}
			if other, taken := ids[o.OperationID]; taken {
				t.Errorf("%s and %s have one operationId", name, other)
			}
			ids[o.OperationID] = name
		}
	}
	for name := range served {
		if !told[name] {
			t.Errorf("%s is served and not described in openapi.yaml", name)
		}
	}
	for name := range told {
		if !served[name] {
			t.Errorf("%s is described in openapi.yaml and not served", name)
		}
	}
}

// Everything that is referred to is there and used, and every variable of a
// path is declared.
func TestOpenAPIReferences(t *testing.T) {
	d := described(t)
	if !strings.HasPrefix(d.OpenAPI, "3.0.") {
		t.Error(d.OpenAPI)
	}
	used := map[string]bool{}
	for _, match := range regexp.MustCompile(`\$ref: '#/components/(\w+)/(\w+)'`).FindAllSubmatch(openAPI, -1) {
		kind, name := string(match[1]), string(match[2])
		used[kind+"/"+name] = true
		if _, ok := d.Components[kind][name]; !ok {
			t.Errorf("#/components/%s/%s is referred to and missing", kind, name)
		}
	}
	for kind, entries := range d.Components {
		for name := range entries {
			if !used[kind+"/"+name] {
				t.Errorf("#/components/%s/%s is not used", kind, name)
			}
		}
	}
	for path, methods := range d.Paths {
		for _, match := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
			text, err := yaml.Marshal(methods["parameters"])
			must(t, err)
			if !strings.Contains(string(text), "parameters/"+match[1]) {
				t.Errorf("%s does not declare %s", path, match[1])
			}
		}
	}
}

// What is refused for good says so, and does.
func TestOpenAPIRefusals(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	for path, methods := range described(t).Paths {
		for method, node := range methods {
			if method == "parameters" {
				continue
			}
			o := operationOf(t, node)
			if o.Tags[0] != "refused" || o.OperationID == "listPlugins" {
				continue
			}
			w := ask(s, strings.ToUpper(method), strings.NewReplacer("{id}", "x", "{name}", "x").Replace(path), "")
			if _, ok := o.Responses[fmt.Sprint(w.Code)]; !ok || w.Code < 400 || message(t, w) == "" {
				t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
			}
		}
	}
}

func TestOpenAPIIsServed(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	w := ask(s, "GET", "/linkspan/v1/openapi.yaml", "")
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/yaml" || !bytes.Equal(w.Body.Bytes(), openAPI) {
		t.Error(w.Code, w.Header())
	}
}
