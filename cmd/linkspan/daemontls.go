package main

import (
	"crypto/tls"
	"fmt"
	"strings"

	"github.com/docker/go-connections/tlsconfig"
	"github.com/spf13/pflag"
)

// tlsFlags are dockerd's. Who may talk to the daemon is root on the machine, so
// over TCP everybody must show a certificate.
type tlsFlags struct {
	verify        bool
	ca, cert, key string // file names
}

func (f *tlsFlags) bind(flags *pflag.FlagSet) {
	flags.BoolVar(&f.verify, "tlsverify", false, "use TLS and verify the remote: needed for tcp:// addresses")
	flags.StringVar(&f.ca, "tlscacert", "", "`file` of the certificates that clients' certificates must be signed by")
	flags.StringVar(&f.cert, "tlscert", "", "`file` of the daemon's certificate")
	flags.StringVar(&f.key, "tlskey", "", "`file` of the key to it")
}

// config returns how to listen on TCP, nil for not at all.
func (f *tlsFlags) config(hosts []string) (*tls.Config, error) {
	tcp := ""
	for _, host := range hosts {
		if strings.HasPrefix(host, "tcp:") {
			tcp = host
		}
	}
	switch {
	case !f.verify && tcp == "":
		return nil, nil
	case !f.verify:
		return nil, fmt.Errorf("invalid --host %s: over TCP anybody could be root on this machine; give --tlsverify --tlscacert FILE --tlscert FILE --tlskey FILE, or use ssh to reach the unix socket", tcp)
	case f.ca == "" || f.cert == "" || f.key == "":
		return nil, fmt.Errorf("invalid --tlsverify: it needs --tlscacert, --tlscert and --tlskey")
	}
	config, err := tlsconfig.Server(tlsconfig.Options{
		CAFile: f.ca, CertFile: f.cert, KeyFile: f.key, ClientAuth: tls.RequireAndVerifyClientCert, ExclusiveRootPools: true,
	})
	if err != nil {
		return nil, fmt.Errorf("invalid --tlsverify: %w", err)
	}
	return config, nil
}
