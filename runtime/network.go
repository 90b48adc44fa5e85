package runtime

import (
	"context"
	"os"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/sandbox"
)

// Networks is all that a runtime knows of networking. Methods are called
// without locks held, for different containers at the same time, and for one
// container one after the other. Detach and Forget succeed when there is
// nothing (any more) to undo.
type Networks interface {
	// Reserve records at creation what the container wants of networks. An
	// error refuses the creation.
	Reserve(context.Context, Container) error
	// Attach makes what a start needs; all is up when it returns.
	Attach(context.Context, Container) (Attachment, error)
	// Detach undoes all that Attach made, after an exit or a failed start. The
	// networks' events wait until tell, never nil, is called; it must not block.
	Detach(context.Context, linkspan.ID) (tell func(), err error)
	// Forget gives up, on removal, what Reserve recorded.
	Forget(context.Context, linkspan.ID) error
}

// Attachment is what the container's start needs of its networks.
type Attachment struct {
	Netns string // path of the pinned namespace; "" is the daemon's own
	// Paths of the files that are bound over the container's own in /etc; ""
	// leaves those alone.
	Hosts, ResolvConf, Hostname string
	// Keep are descriptors that live as long as the container, daemon or no
	// daemon: the shim gets copies, and the runtime closes these when it has
	// them, or when the start fails.
	Keep []*os.File
	// Ports are what is published, and Holds the sockets that hold those that
	// are not routed, one a port and in order; the same goes for them.
	Ports []sandbox.Port
	Holds kernel.Sockets
}
