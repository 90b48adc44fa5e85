package store

import (
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/sandbox"
)

// Config is what a container wants of its network, in the user's words.
type Config struct {
	Owner   linkspan.ID // the container
	Name    string      // of the container, without slash
	Created time.Time
	// Volatile says that the container does not outlive a reboot (--rm).
	Volatile bool `json:",omitempty"`

	Mode       string // the network mode: "host", "none", "container:ID" or the name of a network
	Hostname   string
	Domainname string   `json:",omitempty"`
	Servers    []string `json:",omitempty"` // --dns
	Search     []string `json:",omitempty"` // --dns-search
	Options    []string `json:",omitempty"` // --dns-option
	ExtraHosts []string `json:",omitempty"` // --add-host
	Links      []Link   `json:",omitempty"` // --link, on the default bridge
	NoIPv6     bool     `json:",omitempty"` // its sysctls switch IPv6 off

	Labels      map[string]string `json:",omitempty"` // of the container: drivers that are plugins are told
	Attachments []endpoint.Config `json:",omitempty"`

	Ports   []sandbox.Wish `json:",omitempty"` // --publish, --publish-all
	Exposed []string       `json:",omitempty"` // --expose and what is published: 80/tcp
}

// Link is a name by which one container on the default bridge knows another.
type Link struct {
	Target linkspan.ID
	Alias  string
}
