package api

import (
	"context"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/runtime"
)

// Networks lets the launcher of containers use the controller, in the words
// that package runtime has for it. Neither of the two knows the other.
type Networks struct{ Controller *controller.Controller }

var (
	_ runtime.Networks = Networks{}
	_ runtime.Links    = Networks{}
)

// Reserve implements runtime.Networks.
func (n Networks) Reserve(_ context.Context, c runtime.Container) error {
	return n.Controller.Reserve(controllerContainer(c))
}

// Attach implements runtime.Networks.
func (n Networks) Attach(ctx context.Context, c runtime.Container) (runtime.Attachment, error) {
	made, err := n.Controller.Attach(ctx, c.ID)
	return runtime.Attachment{Netns: made.Netns, Hosts: made.Hosts, ResolvConf: made.ResolvConf, Hostname: made.Hostname, Keep: made.Keep, Ports: made.Ports, Holds: made.Holds}, err
}

// Detach implements runtime.Networks.
func (n Networks) Detach(ctx context.Context, id linkspan.ID) (tell func(), err error) {
	return n.Controller.Release(ctx, id)
}

// Forget implements runtime.Networks.
func (n Networks) Forget(_ context.Context, id linkspan.ID) error {
	return n.Controller.Forget(id)
}

// Linked implements runtime.Links.
func (n Networks) Linked(owner linkspan.ID) (links []runtime.Link) {
	for _, l := range n.Controller.Linked(owner) {
		links = append(links, runtime.Link{Target: l.Target, Name: l.Name, Addr: l.Addr})
	}
	return links
}

// LinkTarget implements runtime.Links.
func (n Networks) LinkTarget(name string) (linkspan.ID, bool) { return n.Controller.LinkTarget(name) }

func controllerContainer(c runtime.Container) controller.Container {
	return controller.Container{ID: c.ID, Name: c.Name, Created: c.Created, Config: c.Config, HostConfig: c.HostConfig, Networking: c.Networking}
}
