package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func repositoryRoot(t *testing.T) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(filepath.Dir(here))
}

// planned returns the calls that a verb makes of a line, one JSON text each.
func planned(t *testing.T, v verb, line ...string) ([]string, error) {
	t.Helper()
	if err := v.command.ParseFlags(line); err != nil {
		return nil, err
	}
	args := v.command.Flags().Args()
	if err := v.command.ValidateArgs(args); err != nil {
		return nil, err
	}
	calls, err := v.calls(v.command, args)
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, c := range calls {
		body := ""
		if c.Body != nil {
			encoded, err := json.Marshal(c.Body)
			if err != nil {
				t.Fatal(err)
			}
			body = " " + string(encoded)
		}
		texts = append(texts, c.Method+" "+c.Path+body)
	}
	return texts, nil
}

func TestVerbCalls(t *testing.T) {
	tests := []struct {
		verb func() verb
		line string
		want []string
	}{
		{networkRmVerb, "a b", []string{"DELETE /networks/a", "DELETE /networks/b"}},
		{networkRmVerb, "a/b?c", []string{"DELETE /networks/a%2Fb%3Fc"}},
		{networkDisconnectVerb, "-f lab web", []string{`POST /networks/lab/disconnect {"Container":"web","Force":true}`}},
		{networkPruneVerb, "--filter label=x", []string{"POST /networks/prune?filters=%7B%22label%22%3A%7B%22x%22%3Atrue%7D%7D"}},
		{networkUpdateVerb, "--mtu 1400 --ipv6 --internal=false -o a=b --opt-rm c --label d=e --label-rm f --subnet 10.78.0.0/24 --gateway 10.78.0.9 lab", []string{
			`PATCH /linkspan/v1/networks/lab {"Options":{"a":"b","c":null,"com.docker.network.driver.mtu":"1400"},"Labels":{"d":"e","f":null},"EnableIPv6":true,"Internal":false,"Pools":[{"Subnet":"10.78.0.0/24","Gateway":"10.78.0.9"}]}`,
		}},
		{networkUpdateVerb, "--mtu 0 lab", []string{`PATCH /linkspan/v1/networks/lab {"Options":{"com.docker.network.driver.mtu":null}}`}},
		{startVerb, "a b", []string{"POST /containers/a/start", "POST /containers/b/start"}},
		{stopVerb, "a", []string{"POST /containers/a/stop"}},
		{stopVerb, "-t 0 -s INT a", []string{"POST /containers/a/stop?signal=INT&t=0"}},
		{restartVerb, "--time 3 a", []string{"POST /containers/a/restart?t=3"}},
		{killVerb, "-s HUP a", []string{"POST /containers/a/kill?signal=HUP"}},
		{rmVerb, "-f -v a", []string{"DELETE /containers/a?force=1&v=1"}},
		{rmVerb, "/a", []string{"DELETE /containers/a"}},
		{pauseVerb, "a", []string{"POST /containers/a/pause"}},
		{unpauseVerb, "a", []string{"POST /containers/a/unpause"}},
		{renameVerb, "a b", []string{"POST /containers/a/rename?name=b"}},
	}
	for _, test := range tests {
		t.Run(test.want[0], func(t *testing.T) {
			got, err := planned(t, test.verb(), strings.Fields(test.line)...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVerbRefusals(t *testing.T) {
	tests := []struct {
		verb func() verb
		line []string
		want string
	}{
		{networkRmVerb, []string{".."}, `invalid name or ID: ".."`},
		{networkRmVerb, []string{" "}, "value is empty"},
		{rmVerb, []string{"/"}, "value is empty"},
		{renameVerb, []string{"a", "/"}, "neither old nor new names may be empty"},
		{networkConnectVerb, []string{"lab"}, "accepts 2 arg(s)"},
		{networkConnectVerb, []string{"--ip", "x", "lab", "web"}, "invalid IPv4 address: x"},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.line, " "), func(t *testing.T) {
			got, err := planned(t, test.verb(), test.line...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, error %v; want an error with %q", got, err, test.want)
			}
		})
	}
}

func TestNetworkCreateRequest(t *testing.T) {
	tests := []struct{ name, line, part, want string }{
		{"plain", "lab", "", `{"Attachable":false,"ConfigFrom":null,"ConfigOnly":false,"Driver":"bridge",` +
			`"IPAM":{"Config":[],"Driver":"default","Options":{}},"Ingress":false,"Internal":false,"Labels":{},"Name":"lab","Options":{},"Scope":""}`},
		{
			"pools by containment", "--subnet 10.1.0.0/16 --subnet fd00:1::/64 --gateway fd00:1::1 --gateway 10.1.0.1 --ip-range 10.1.5.0/24 --aux-address r=10.1.0.9 lab", "IPAM Config",
			`[{"AuxiliaryAddresses":{"r":"10.1.0.9"},"Gateway":"10.1.0.1","IPRange":"10.1.5.0/24","Subnet":"10.1.0.0/16"},{"Gateway":"fd00:1::1","Subnet":"fd00:1::/64"}]`,
		},
		{"options", "-o com.docker.network.driver.mtu=1400 -o a=b=c lab", "Options", `{"a":"b=c","com.docker.network.driver.mtu":"1400"}`},
		{"IPv6 asked for", "--ipv6 lab", "EnableIPv6", "true"},
		{"IPv4 turned off", "--ipv4=false lab", "EnableIPv4", "false"},
		{"unmasked subnet is the daemon's to judge", "--subnet 10.1.2.3/16 lab", "IPAM Config", `[{"Subnet":"10.1.2.3/16"}]`},
		{"configuration", "--config-from c lab", "ConfigFrom", `{"Network":"c"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			calls, err := planned(t, networkCreateVerb(), strings.Fields(test.line)...)
			if err != nil {
				t.Fatal(err)
			}
			_, body, _ := strings.Cut(calls[0], "/networks/create ")
			if diff := cmp.Diff(test.want, pick(t, body, strings.Fields(test.part)...)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.part, diff)
			}
		})
	}
}

func TestNetworkCreateRefusals(t *testing.T) {
	tests := []struct{ line, want string }{
		{"--subnet 10.77.0.0 lab", `invalid subnet "10.77.0.0": want an address and a prefix length`},
		{"--subnet 10.77.0.0/33 lab", "invalid subnet"},
		{"--gateway 10.0.0.1 lab", "every ip-range or gateway must have a corresponding subnet"},
		{"--subnet 10.1.0.0/16 --gateway 10.2.0.1 lab", "no matching subnet for gateway 10.2.0.1"},
		{"--subnet 10.1.0.0/16 --gateway x lab", `invalid gateway "x"`},
		{"--subnet 10.1.0.0/16 --ip-range 10.2.0.0/24 lab", "no matching subnet for range 10.2.0.0/24"},
		{"--subnet 10.1.0.0/16 --subnet 10.1.2.0/24 lab", "multiple overlapping subnet configuration"},
		{"--subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --gateway 10.1.0.1 --gateway 10.1.0.2 lab", "cannot configure multiple gateways"},
		{"--subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --ip-range 10.1.1.0/24 --ip-range 10.1.2.0/24 lab", "cannot configure multiple ranges"},
		{"--subnet 10.1.0.0/16 --aux-address 10.1.0.4 lab", "want name=address"},
		{"--subnet 10.1.0.0/16 --aux-address a=10.2.0.4 lab", "no matching subnet for aux-address 10.2.0.4"},
		{"-o =x lab", "invalid --opt"},
		{"", "accepts 1 arg(s), received 0"},
		{"a b", "accepts 1 arg(s), received 2"},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			calls, err := planned(t, networkCreateVerb(), strings.Fields(test.line)...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, error %v; want an error with %q", calls, err, test.want)
			}
		})
	}
}

func TestNetworkCommands(t *testing.T) {
	daemon := newFake(t, map[string]answer{
		"POST /networks/create":         {status: http.StatusCreated, body: `{"Id":"abc","Warning":"mind the gap"}`},
		"POST /networks/lab/connect":    {},
		"POST /networks/lab/disconnect": {},
		"DELETE /networks/lab":          {status: http.StatusNoContent},
		"DELETE /networks/busy":         {status: http.StatusForbidden, body: `{"message":"error while removing network: network busy has active endpoints (name:\"web\" id:\"0123456789ab\")"}`},
		"DELETE /networks/gone":         {status: http.StatusNotFound, body: `{"message":"network gone not found"}`},
		"POST /networks/prune":          {body: `{"NetworksDeleted":["n1","n2"]}`},
		"GET /networks/lab":             {body: `{"Name":"lab","Id":"abc","IPAM":{"Config":[{"Subnet":"10.77.0.0/24"}]},"Later":"field"}`},
		"GET /networks":                 {body: `[{"Name":"net10","Id":"1111111111111111","Driver":"bridge","Scope":"local","Labels":{"b":"2","a":"1"}},{"Name":"net2","Id":"2222222222222222","Driver":"host","Scope":"local"}]`},
	})
	tests := []struct {
		line, out, err string
		code           int
	}{
		{"network create lab", "abc\n", "WARNING: mind the gap\n", 0},
		{"network connect lab web", "", "", 0},
		{"network disconnect lab web", "", "", 0},
		{"network rm lab", "lab\n", "", 0},
		{
			"network rm gone busy lab", "lab\n",
			"linkspan: Error response from daemon: network gone not found; Error response from daemon: error while removing network: network busy has active endpoints (name:\"web\" id:\"0123456789ab\")\n", 1,
		},
		{"network rm -f gone lab", "lab\n", "", 0},
		{"network prune -f", "Deleted Networks:\nn1\nn2\n\n", "", 0},
		{"network prune", "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] \n", "", 0},
		{"network ls", "NETWORK ID     NAME      DRIVER    SCOPE\n222222222222   net2      host      local\n111111111111   net10     bridge    local\n", "", 0},
		{"network ls -q --no-trunc", "2222222222222222\n1111111111111111\n", "", 0},
		{"network ls --format {{.Name}}:{{.Labels}}", "net2:\nnet10:a=1,b=2\n", "", 0},
		{"network inspect -f {{.Later}} lab", "field\n", "", 0},
		{"network inspect -f {{range.IPAM.Config}}{{.Subnet}}{{end}} lab", "10.77.0.0/24\n", "", 0},
		{"network inspect gone", "[]\n", "linkspan: Error response from daemon: page not found\n", 1},
		{"network inspect lab", "[\n    {\n        \"Name\": \"lab\",\n        \"Id\": \"abc\",\n        \"IPAM\": {\n            \"Config\": [\n                {\n" +
			"                    \"Subnet\": \"10.77.0.0/24\"\n                }\n            ]\n        },\n        \"Later\": \"field\"\n    }\n]\n", "", 0},
		{"network bad", "", "linkspan: unknown verb \"bad\": see `linkspan network --help` for those there are\n", 1},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			got := invoke(t, daemon.host, "", strings.Fields(test.line)...)
			if diff := cmp.Diff(result{test.out, test.err, test.code}, got, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
