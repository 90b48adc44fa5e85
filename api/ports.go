package api

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/runtime"
	"github.com/linkspan/linkspan/sandbox"
)

type publisher interface {
	Publish(ctx context.Context, owner linkspan.ID, wishes []sandbox.Wish) ([]sandbox.Port, error)
	Unpublish(ctx context.Context, owner linkspan.ID, wishes []sandbox.Wish) ([]sandbox.Port, error)
	AllPublished() []controller.PublishedPort
	ExplainPublish(owner linkspan.ID, wishes []sandbox.Wish) (undo, do op.Plan, err error)
	ExplainUnpublish(owner linkspan.ID, wishes []sandbox.Wish) (undo, do op.Plan, err error)
}

// PortsRequest names ports of a container in the notation of docker run -p.
type PortsRequest struct {
	Ports []string
	// Sources are who may use ports that are to be published; none: everybody.
	Sources []string `json:",omitempty"`
}

// PublishedPort is what is published, one row for ports that follow each other.
type PublishedPort struct {
	Container string // ID
	Name      string
	Protocol  string
	Host      string // address of the host; empty: routed, the port is open at To
	HostPort  uint16 `json:",omitempty"` // the first of Count
	Count     uint16
	To        string   // the container's address and the first of its ports
	Sources   []string `json:",omitempty"`
	// ReachableFrom says in words who reaches the port.
	ReachableFrom string
}

// listPorts answers with what is published on this host, or of one container.
func (s *Server) listPorts(w http.ResponseWriter, r *http.Request) error {
	only := linkspan.ID("")
	if ref := variable(r, "name"); ref != "" {
		c, err := s.containers.Get(ref)
		if err != nil {
			return err
		}
		only = c.ID
	}
	rows := []PublishedPort{}
	for _, p := range s.networks.AllPublished() {
		if only == "" || p.Container == only {
			rows = append(rows, publishedPort(p))
		}
	}
	writeJSON(w, http.StatusOK, rows)
	return nil
}

func publishedPort(p controller.PublishedPort) PublishedPort {
	row := PublishedPort{
		Container: string(p.Container), Name: p.Name, Protocol: p.Protocol, Count: p.Count, To: p.To.String(),
		ReachableFrom: controller.ReachOf(p.Port).String(),
	}
	if !p.Routed {
		row.Host, row.HostPort = p.Host.String(), p.First
	}
	for _, source := range p.Sources {
		row.Sources = append(row.Sources, source.String())
	}
	return row
}

func (s *Server) publishPorts(w http.ResponseWriter, r *http.Request) error {
	return s.changePorts(w, r, s.networks.Publish)
}

func (s *Server) unpublishPorts(w http.ResponseWriter, r *http.Request) error {
	return s.changePorts(w, r, s.networks.Unpublish)
}

func (s *Server) changePorts(w http.ResponseWriter, r *http.Request, change func(context.Context, linkspan.ID, []sandbox.Wish) ([]sandbox.Port, error)) error {
	c, wishes, err := s.wishesOf(w, r)
	if err != nil {
		return err
	}
	// A client that hangs up does not leave half of it done.
	ports, err := change(context.WithoutCancel(r.Context()), c.ID, wishes)
	if err != nil {
		return err
	}
	rows := []PublishedPort{}
	for _, p := range ports {
		rows = append(rows, publishedPort(controller.PublishedPort{Container: c.ID, Name: c.Name, Port: p}))
	}
	writeJSON(w, http.StatusOK, rows)
	return nil
}

// wishesOf reads whose ports a request is about, and which.
func (s *Server) wishesOf(w http.ResponseWriter, r *http.Request) (c runtime.Container, wishes []sandbox.Wish, err error) {
	if c, err = s.containers.Get(variable(r, "name")); err != nil {
		return c, nil, err
	}
	var request PortsRequest
	if err = readJSON(w, r, &request); err != nil {
		return c, nil, err
	}
	wishes, err = request.wishes()
	return c, wishes, err
}

func (s *Server) explainPublish(ctx context.Context, r *http.Request) (string, error) {
	return s.explainPorts(ctx, r, s.networks.ExplainPublish)
}

func (s *Server) explainUnpublish(ctx context.Context, r *http.Request) (string, error) {
	return s.explainPorts(ctx, r, s.networks.ExplainUnpublish)
}

func (s *Server) explainPorts(ctx context.Context, r *http.Request, explain func(linkspan.ID, []sandbox.Wish) (undo, do op.Plan, err error)) (string, error) {
	c, wishes, err := s.wishesOf(nil, r)
	if err != nil {
		return "", err
	}
	undo, do, err := explain(c.ID, wishes)
	switch {
	case err != nil:
		return "", err
	case len(undo)+len(do) == 0 && !c.State.Running():
		return comment("Container %s does not run: the wish would be recorded, and followed when it starts.", c.Name), nil
	}
	text := comment("Container %s's shim holds a socket for each published port, from before the rules lead there until they do no more.", c.Name)
	if len(undo) > 0 {
		text += undone(ctx, "What is published no more", undo) + "\n"
	}
	return text + do.In(dialectOf(ctx)), nil
}

func (q PortsRequest) wishes() ([]sandbox.Wish, error) {
	if len(q.Ports) == 0 {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "no ports are named")
	}
	var sources []netip.Prefix
	for _, text := range q.Sources {
		source, err := sandbox.ParseSource(text)
		if err != nil {
			return nil, err
		}
		sources = append(sources, source)
	}
	var wishes []sandbox.Wish
	for _, text := range q.Ports {
		wish, err := sandbox.ParseWish(text)
		if err != nil {
			return nil, err
		}
		wish.Sources = sources
		wishes = append(wishes, wish)
	}
	return wishes, nil
}
