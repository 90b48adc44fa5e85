package store

import (
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
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

	Attachments []endpoint.Config `json:",omitempty"`
}
