package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// createRequest parses a line of run without a daemon.
func createRequest(t *testing.T, line ...string) (string, error) {
	t.Helper()
	files := map[string]string{"env": "# comment\nB=2\n  C=\"q\"\nINHERITED\nABSENT\n", "bad": "A B=1\n", "labels": "x=y\nz\n"}
	a := &app{getenv: func(name string) (string, bool) { return "from outside", name == "INHERITED" }}
	var o runOptions
	cmd := runCommand()
	bindRun(&o, cmd)
	if err := cmd.ParseFlags(line); err != nil {
		return "", err
	}
	if err := o.take(cmd.Flags(), cmd.Flags().Args()); err != nil {
		return "", err
	}
	body, err := o.request(ambient{getenv: a.getenv, readFile: func(name string) ([]byte, error) {
		content, ok := files[name]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return []byte(content), nil
	}})
	if err != nil {
		return "", err
	}
	encoded, err := json.Marshal(body)
	return string(encoded), err
}

func TestRequestParts(t *testing.T) {
	tests := []struct {
		name, line, part, want string
	}{
		{"rootfs", "--rootfs / -- ip addr", "HostConfig Annotations", `{"linkspan.rootfs":"/"}`},
		{"rootfs takes no image", "--rootfs / -- ip addr", "Image", `""`},
		{"rootfs command", "--rootfs / -- ip addr", "Cmd", `["ip","addr"]`},
		{"rootfs without dashes", "--rootfs / ip -4 addr", "Cmd", `["ip","-4","addr"]`},
		{"rootfs without command", "--rootfs /", "Cmd", `null`},
		{"relative rootfs", "--rootfs ../.. true", "HostConfig Annotations", `{"linkspan.rootfs":"` + repositoryRoot(t) + `"}`},
		{"image", "busybox", "Image", `"busybox"`},
		{"image's own command", "busybox", "Cmd", `null`},
		{"dashes belong to the command", "busybox -- ls", "Cmd", `["--","ls"]`},
		{"flags behind the image are the command's", "busybox ls -l --rm", "Cmd", `["ls","-l","--rm"]`},
		{"entrypoint", "--entrypoint /e busybox", "Entrypoint", `["/e"]`},
		{"emptied entrypoint", "--entrypoint= busybox", "Entrypoint", `[""]`},
		{"no entrypoint", "busybox", "Entrypoint", `null`},
		{"attached", "busybox", "AttachStdout", `true`},
		{"no input", "busybox", "AttachStdin", `false`},
		{"input", "-i busybox", "StdinOnce", `true`},
		{"one stream", "-a stderr busybox", "AttachStdout", `false`},
		{
			"environment", "-e A=1 -e INHERITED -e ABSENT -e E= --env-file env busybox", "Env",
			`["B=2","C=\"q\"","INHERITED=from outside","A=1","INHERITED=from outside","ABSENT","E="]`,
		},
		{"labels", "-l a=b --label-file labels busybox", "Labels", `{"a":"b","x":"y","z":""}`},

		{"no network", "busybox", "HostConfig NetworkMode", `"default"`},
		{"no network's endpoint", "busybox", "NetworkingConfig EndpointsConfig default Aliases", `null`},
		{"one plain network", "--network lab busybox", "HostConfig NetworkMode", `"lab"`},
		{"one plain network has no endpoint", "--network lab busybox", "NetworkingConfig EndpointsConfig", `{}`},
		{"address", "--network lab --ip 10.77.0.50 busybox", "NetworkingConfig EndpointsConfig lab IPAMConfig", `{"IPv4Address":"10.77.0.50"}`},
		{
			"address of v6", "--network lab --ip6 fd00::5 --link-local-ip 169.254.3.4 busybox", "NetworkingConfig EndpointsConfig lab IPAMConfig",
			`{"IPv6Address":"fd00::5","LinkLocalIPs":["169.254.3.4"]}`,
		},
		{"mac", "--network lab --mac-address 02-42-0A-4D-00-32 busybox", "NetworkingConfig EndpointsConfig lab MacAddress", `"02:42:0a:4d:00:32"`},
		{"aliases", "--network lab --network-alias www --alias w3 busybox", "NetworkingConfig EndpointsConfig lab Aliases", `["www","w3"]`},
		{"long form keeps capitals", "--network name=Lab,IP=10.0.0.5,alias=a,alias=b busybox", "NetworkingConfig EndpointsConfig Lab Aliases", `["a","b"]`},
		{
			"long form's options", "--network name=lab,driver-opt=com.docker.network.endpoint.ifname=up0,gw-priority=-3 busybox",
			"NetworkingConfig EndpointsConfig lab DriverOpts", `{"com.docker.network.endpoint.ifname":"up0"}`,
		},
		{"gateway priority", "--network name=lab,gw-priority=-3 busybox", "NetworkingConfig EndpointsConfig lab GwPriority", `-3`},
		{"flags belong to the first network", "--network lab --network lab2 --ip 10.0.0.9 busybox", "NetworkingConfig EndpointsConfig lab2 IPAMConfig", `null`},
		{"shared namespace", "--network container:web busybox", "HostConfig NetworkMode", `"container:web"`},

		{"hosts", "--add-host db:10.77.0.7 --add-host gw=host-gateway --add-host v6:[::1] busybox", "HostConfig ExtraHosts", `["db:10.77.0.7","gw:host-gateway","v6:::1"]`},
		{"dns", "--dns 10.77.0.53 --dns fd00::1 busybox", "HostConfig Dns", `["10.77.0.53","fd00::1"]`},
		{"port", "-p 80 busybox", "HostConfig PortBindings", `{"80/tcp":[{"HostIp":"","HostPort":""}]}`},
		{
			"ports", "-p 127.0.0.1:8000-8001:80-81/udp busybox", "HostConfig PortBindings",
			`{"80/udp":[{"HostIp":"127.0.0.1","HostPort":"8000"}],"81/udp":[{"HostIp":"127.0.0.1","HostPort":"8001"}]}`,
		},
		{"port of a range", "-p 8000-8010:80 busybox", "HostConfig PortBindings", `{"80/tcp":[{"HostIp":"","HostPort":"8000-8010"}]}`},
		{"port of v6", "-p [::1]:8080:80 busybox", "HostConfig PortBindings", `{"80/tcp":[{"HostIp":"::1","HostPort":"8080"}]}`},
		{"port's long form", "-p published=8080,target=80,protocol=udp busybox", "HostConfig PortBindings", `{"80/udp":[{"HostIp":"","HostPort":"8080"}]}`},
		{"exposed", "--expose 70-71/udp -p 80 busybox", "ExposedPorts", `{"70/udp":{},"71/udp":{},"80/tcp":{}}`},

		{"memory", "-m 64m busybox", "HostConfig Memory", `67108864`},
		{"unlimited swap", "--memory-swap -1 busybox", "HostConfig MemorySwap", `-1`},
		{"cpus", "--cpus 1.5 busybox", "HostConfig NanoCpus", `1500000000`},
		{"pids", "--pids-limit 100 busybox", "HostConfig PidsLimit", `100`},
		{"capabilities", "--cap-add net_admin --cap-add CAP_NET_RAW --cap-add NET_ADMIN busybox", "HostConfig CapAdd", `["CAP_NET_ADMIN","CAP_NET_RAW"]`},
		{"all capabilities", "--cap-drop all busybox", "HostConfig CapDrop", `["ALL"]`},
		{"restart", "--restart on-failure:3 busybox", "HostConfig RestartPolicy", `{"MaximumRetryCount":3,"Name":"on-failure"}`},
		{"bind", "-v /a:/b:ro -v data:/d busybox", "HostConfig Binds", `["/a:/b:ro","data:/d"]`},
		{"anonymous volume", "-v /a busybox", "Volumes", `{"/a":{}}`},
		{"tmpfs", "--tmpfs /run:size=1m --tmpfs /x busybox", "HostConfig Tmpfs", `{"/run":"size=1m","/x":""}`},
		{"mount", "--mount type=bind,src=/a,dst=/b,ro busybox", "HostConfig Mounts", `[{"ReadOnly":true,"Source":"/a","Target":"/b","Type":"bind"}]`},
		{"init not asked for", "busybox", "HostConfig Init", `null`},
		{"no init", "--init=false busybox", "HostConfig Init", `false`},
		{"stop timeout of zero", "--stop-timeout 0 busybox", "StopTimeout", `0`},
		{"sysctl", "--sysctl net.ipv4.ip_forward=1 busybox", "HostConfig Sysctls", `{"net.ipv4.ip_forward":"1"}`},
		{"no check of health", "--no-healthcheck busybox", "Healthcheck", `{"Test":["NONE"]}`},
		{"short flags", "-h probe -w /x -u 1:2 busybox", "Hostname", `"probe"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			body, err := createRequest(t, strings.Fields(test.line)...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, pick(t, body, strings.Fields(test.part)...)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.part, diff)
			}
		})
	}
}

func TestRequestRefusals(t *testing.T) {
	tests := []struct{ line, want string }{
		{"", "an IMAGE, or --rootfs DIR, is required"},
		{"--rootfs= true", "the folder's name is empty"},
		{"--network lab --network lab busybox", `network "lab" is specified multiple times`},
		{"--network lab --network host busybox", "cannot attach both user-defined and non-user-defined"},
		{"--network name=lab,ip=10.0.0.1 --ip 10.0.0.2 busybox", "cannot specify both --ip and ip="},
		{"--network ip=10.0.0.1 busybox", "name=NETWORK is missing"},
		{"--network name=lab,colour=red busybox", `invalid field key "colour"`},
		{"--network= busybox", "the name is empty"},
		{"--network lab --ip 10.77.0 busybox", "invalid IPv4 address: 10.77.0"},
		{"--network lab --ip fd00::1 busybox", "invalid IPv4 address: fd00::1"},
		{"--network lab --ip6 10.0.0.1 busybox", "invalid IPv6 address: 10.0.0.1"},
		{"--network lab --ip6 ::ffff:10.0.0.1 busybox", "invalid IPv6 address"},
		{"--network lab --mac-address 02:42 busybox", `"02:42" is not a valid mac address`},
		{"--network lab --mac-address 02:42:0a:4d:00:32:00:01 busybox", "is not a valid mac address"},
		{"--link-local-ip x busybox", "invalid link-local address"},
		{"--dns nowhere busybox", "nowhere is not an ip address"},
		{"--add-host db busybox", "bad format for add-host"},
		{"--add-host db:nowhere busybox", "invalid IP address in add-host"},
		{"-p 99999:80 busybox", "invalid --publish"},
		{"-p nowhere:80:80 busybox", "invalid --publish"},
		{"-p 80:80/icmp busybox", "invalid --publish"},
		{"-p published=80 busybox", "target=PORT is missing"},
		{"--expose 1:2 busybox", "invalid port format for --expose"},
		{"-m lots busybox", `invalid --memory "lots"`},
		{"--cpus many busybox", `invalid --cpus "many"`},
		{"--cpus 0.0000000001 busybox", "value is too precise"},
		{"--restart sometimes busybox", "unknown policy 'sometimes'"},
		{"--restart on-failure:x busybox", "want a whole number"},
		{"--restart always --rm busybox", "cannot specify both --restart and --rm"},
		{"-a stdlog busybox", "want STDIN, STDOUT or STDERR"},
		{"--env-file bad busybox", `variable "A B" contains whitespaces`},
		{"--env-file missing busybox", "reading --env-file"},
		{"-e =x busybox", "invalid environment variable"},
		{"-v /a:b busybox", "must be absolute"},
		{"-v a busybox", "must be absolute"},
		{"--tmpfs a busybox", "must be absolute"},
		{"--mount type=bind,dst=/b busybox", "source is required"},
		{"--mount type=bind,src=/b busybox", "target is required"},
		{"--stop-signal SIGNOPE busybox", "invalid --stop-signal"},
		{"--sysctl =1 busybox", "invalid --sysctl"},
		{"--ulimit nofile busybox", "invalid --ulimit"},
		{"--no-healthcheck --health-cmd x busybox", "conflicts with --health"},
		{"--nope busybox", "unknown flag: --nope"},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			body, err := createRequest(t, strings.Fields(test.line)...)
			if err == nil {
				t.Fatalf("accepted: %s", body)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q does not say %q", err, test.want)
			}
			if special := (exit{}); errors.As(err, &special) {
				t.Errorf("the request names an exit status, which is run's business: %v", special)
			}
		})
	}
}

// FuzzAttachment: what parses has a name, and its settings either refuse or
// carry exactly the addresses that were typed.
func FuzzAttachment(f *testing.F) {
	f.Add("lab")
	f.Add("name=lab,ip=10.0.0.5,alias=a,mac-address=02:42:0a:4d:00:32")
	f.Add(`"name=lab","driver-opt=a=b,c"`)
	f.Fuzz(func(t *testing.T, text string) {
		one, err := parseAttachment(text)
		if err != nil {
			return
		}
		if one.name == "" {
			t.Errorf("%q parsed to no name", text)
		}
		settings, err := one.settings()
		if err != nil {
			return
		}
		if one.ip != "" && settings.IPAMConfig.IPv4Address.String() != one.ip {
			t.Errorf("%q: ip %q became %s", text, one.ip, settings.IPAMConfig.IPv4Address)
		}
		if one.ip == "" && settings.IPAMConfig != nil && settings.IPAMConfig.IPv4Address.IsValid() {
			t.Errorf("%q: an address out of nothing: %s", text, settings.IPAMConfig.IPv4Address)
		}
	})
}

// FuzzPorts: every binding has its port exposed, and the text of each port
// parses to itself.
func FuzzPorts(f *testing.F) {
	f.Add("127.0.0.1:8000-8001:80-81/udp")
	f.Add("published=1,target=2,host_ip=::1")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 64 {
			return
		}
		exposed, bindings, err := parsePorts([]string{text}, nil)
		if err != nil {
			return
		}
		for port := range bindings {
			if _, ok := exposed[port]; !ok {
				t.Errorf("%q: %s is bound but not exposed", text, port)
			}
			again, _, err := parsePorts([]string{port.String()}, nil)
			if _, ok := again[port]; err != nil || !ok {
				t.Errorf("%q: %s does not parse to itself: %v", text, port, err)
			}
		}
	})
}
