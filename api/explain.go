package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gorilla/mux"
	apinetwork "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/runtime"
)

// question is a request that somebody wants explained and not carried out.
type question struct {
	Method string
	Path   string // with its query, with or without a version
	Body   json.RawMessage
}

// explanation writes what a request would do; r is that request.
type explanation struct {
	method, path string
	explain      func(*Server, context.Context, *http.Request) (string, error)
}

func explanations() []explanation {
	return []explanation{
		{"POST", "/networks/create", (*Server).explainCreateNetwork},
		{"PATCH", "/linkspan/v1/networks/{id}", (*Server).explainUpdateNetwork},
		{"POST", "/linkspan/v1/networks/{id}", (*Server).explainUpdateNetwork},
		{"POST", "/networks/prune", (*Server).explainPruneNetworks},
		{"DELETE", "/networks/{id}", (*Server).explainRemoveNetwork},
		{"POST", "/networks/{id}/connect", (*Server).explainConnect},
		{"POST", "/networks/{id}/disconnect", (*Server).explainDisconnect},
		{"POST", "/containers/create", (*Server).explainCreate},
		{"POST", "/containers/{name}/start", (*Server).explainStart},
		{"POST", "/containers/{name}/stop", (*Server).explainStop},
		{"POST", "/containers/{name}/kill", (*Server).explainKill},
		{"POST", "/containers/{name}/restart", (*Server).explainRestart},
		{"POST", "/containers/{name}/pause", (*Server).explainFreeze},
		{"POST", "/containers/{name}/unpause", (*Server).explainFreeze},
		{"POST", "/containers/{name}/rename", (*Server).explainRename},
		{"DELETE", "/containers/{name}", (*Server).explainRemove},
		{"POST", "/linkspan/v1/containers/{name}/ports", (*Server).explainPublish},
		{"DELETE", "/linkspan/v1/containers/{name}/ports", (*Server).explainUnpublish},
	}
}

// explain answers with a commented script. It changes nothing: every plan
// comes from the pure part of a verb.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) error {
	var q question
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	r, err := inDialect(r)
	if err != nil {
		return err
	}
	e, asked, err := explanationOf(r, q)
	if err != nil {
		return err
	}
	text, err := e.explain(s, r.Context(), asked)
	if err != nil {
		return err
	}
	return writeScript(w, text)
}

// explanationOf finds out what a question is about, and makes a request of it.
func explanationOf(r *http.Request, q question) (explanation, *http.Request, error) {
	asked, err := asked(r, q)
	if err != nil {
		return explanation{}, nil, err
	}
	for _, e := range explanations() {
		var match mux.RouteMatch
		if mux.NewRouter().UseEncodedPath().Methods(e.method).Path(e.path).Match(asked, &match) {
			return e, mux.SetURLVars(asked, match.Vars), nil
		}
	}
	return explanation{}, nil, linkspan.Errorf(linkspan.ErrInvalid, "%s %s cannot be explained: it changes nothing, or is not known", q.Method, asked.URL.Path)
}

// dialectKey is where the context of a request keeps the dialect of its answer.
type dialectKey struct{}

// inDialect reads the dialect that a request wants its answer in.
func inDialect(r *http.Request) (*http.Request, error) {
	dialect, err := op.ParseDialect(r.URL.Query().Get("dialect"))
	return r.WithContext(context.WithValue(r.Context(), dialectKey{}, dialect)), err
}

func dialectOf(ctx context.Context) op.Dialect {
	dialect, _ := ctx.Value(dialectKey{}).(op.Dialect)
	return dialect
}

// asked makes a request of a question.
func asked(r *http.Request, q question) (*http.Request, error) {
	target, err := url.ParseRequestURI(q.Path)
	if err != nil {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid path to explain: %w", err)
	}
	ctx := context.WithValue(r.Context(), versionKey{}, newest)
	request, err := http.NewRequestWithContext(ctx, q.Method, target.String(), bytes.NewReader(q.Body))
	if err != nil {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid request to explain: %w", err)
	}
	if parts := versioned.FindStringSubmatch(request.URL.EscapedPath()); parts != nil {
		v, err := parseVersion(parts[1], parts[2])
		if err != nil {
			return nil, err
		}
		request = request.WithContext(context.WithValue(ctx, versionKey{}, v))
		if request.URL, err = url.ParseRequestURI(parts[4] + "?" + target.RawQuery); err != nil {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid path to explain: %w", err)
		}
	}
	request.Header.Set("Content-Type", "application/json")
	return request, nil
}

func writeScript(w http.ResponseWriter, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := io.WriteString(w, text)
	return err
}

// comment makes lines of text comments of a shell script.
func comment(format string, args ...any) string {
	var text strings.Builder
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		text.WriteString("# " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return text.String()
}

// undone prints a plan that would be undone. Its steps are those that were
// done; what takes each of them back is its own business.
func undone(ctx context.Context, what string, plan op.Plan) string {
	if len(plan) == 0 {
		return comment("%s has nothing in the kernel that would be undone.", what)
	}
	reversed := slices.Clone(plan)
	slices.Reverse(reversed)
	return comment("%s was made by the steps below, here with the last one first.\nEach of them would be undone, in this order.", what) + "\n" + comment("%s", reversed.In(dialectOf(ctx)))
}

func (s *Server) explainCreateNetwork(ctx context.Context, r *http.Request) (string, error) {
	var request apinetwork.CreateRequest
	if err := readJSON(nil, r, &request); err != nil {
		return "", err
	}
	spec, err := s.networkSpec(request, versionOf(r))
	if err != nil {
		return "", err
	}
	plan, err := s.networks.ExplainCreate(ctx, spec)
	return plan.In(dialectOf(ctx)), err
}

func (s *Server) explainRemoveNetwork(ctx context.Context, r *http.Request) (string, error) {
	return s.removalOf(ctx, variable(r, "id"))
}

func (s *Server) removalOf(ctx context.Context, ref string) (string, error) {
	n, err := s.networks.Network(ref)
	if err != nil {
		return "", err
	}
	if network.Predefined(n.Name) {
		return "", linkspan.Errorf(linkspan.ErrForbidden, "%s is a pre-defined network and cannot be removed", n.Name)
	}
	if attached := s.networks.Endpoints(n.ID); len(attached) > 0 {
		return "", linkspan.Errorf(linkspan.ErrForbidden, "error while removing network: network %s has active endpoints (container %s and perhaps others)", n.Name, attached[0].Name)
	}
	plan, err := s.networks.ExplainRemove(ref)
	return undone(ctx, "Network "+n.Name, plan), err
}

func (s *Server) explainPruneNetworks(ctx context.Context, r *http.Request) (string, error) {
	f, until, err := pruneFilters(r, s.now())
	if err != nil {
		return "", err
	}
	wanted := prunableNetwork(f, until)
	text := ""
	for _, n := range s.networks.Networks() {
		if !s.dangling(n) || !wanted(n) {
			continue
		}
		one, err := s.removalOf(ctx, string(n.ID))
		if err != nil {
			return "", err
		}
		text += one + "\n"
	}
	if text == "" {
		return comment("No network is unused: nothing would be done."), nil
	}
	return text, nil
}

// explainConnect can say what is only recorded. The plan of a live attachment
// cannot be had yet without making it.
func (s *Server) explainConnect(ctx context.Context, r *http.Request) (string, error) {
	id, settings, err := s.connection(nil, r)
	if err != nil {
		return "", err
	}
	plan, err := s.networks.ExplainConnect(variable(r, "id"), id, settings)
	if err != nil || len(plan) > 0 {
		return plan.In(dialectOf(ctx)), err
	}
	return comment("The container does not run: the connection would be recorded, and made when it starts."), nil
}

func (s *Server) explainDisconnect(ctx context.Context, r *http.Request) (string, error) {
	var request apinetwork.DisconnectRequest
	if err := readJSON(nil, r, &request); err != nil {
		return "", err
	}
	id, err := s.connectable(request.Container)
	if err != nil {
		return "", err
	}
	plan, err := s.networks.ExplainDisconnect(variable(r, "id"), id)
	if err != nil || len(plan) > 0 {
		return undone(ctx, "The connection", plan), err
	}
	return comment("The container does not run: that it wants the network would be forgotten."), nil
}

// explainCreate tells of a creation, and with start=1 of the start as well.
func (s *Server) explainCreate(ctx context.Context, r *http.Request) (string, error) {
	var body createBody
	if err := readJSON(nil, r, &body); err != nil {
		return "", err
	}
	request, _, err := s.creation(body, versionOf(r))
	if err != nil {
		return "", err
	}
	release, err := s.useImage(&request, ocispec.Platform{})
	if err != nil {
		return "", err
	}
	defer release()
	name := r.URL.Query().Get("name")
	if held, err := s.containers.Get(name); err == nil && held.Name == name {
		return "", linkspan.Errorf(linkspan.ErrConflict, "Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, held.ID)
	}
	c := runtime.Container{
		ID: linkspan.NewID(), Name: name, Created: s.now(), Config: request.Config, HostConfig: request.HostConfig, Networking: request.Networking,
		Rootfs: request.Rootfs, Image: request.Image, Lower: request.Lower,
	}
	if c.Name == "" {
		c.Name = c.ID.Short()
	}
	text, err := s.launchOf(ctx, c)
	if err != nil {
		return "", err
	}
	if boolean(r, "start") {
		return text, nil
	}
	return comment("A creation is a record under the data root: nothing in the kernel changes.\nA start would do what follows.") + "\n" + text, nil
}

func (s *Server) explainStart(ctx context.Context, r *http.Request) (string, error) {
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return "", err
	}
	if c.State.Running() {
		return comment("Container %s runs already: nothing would be done.", c.Name), nil
	}
	return s.launchOf(ctx, c)
}

// launchOf is what a start does: the launcher's part in words, the network's
// as a plan.
func (s *Server) launchOf(ctx context.Context, c runtime.Container) (string, error) {
	text := comment("%s", launcher(c)) + "\n"
	if donor, borrows := strings.CutPrefix(string(c.HostConfig.NetworkMode), "container:"); borrows {
		lender, err := s.containers.Get(donor)
		if err != nil {
			return "", linkspan.Errorf(linkspan.ErrNotFound, "joining network namespace of container: %w", err)
		}
		return text + comment("Its network stack is that of container %s: there is nothing to make.", lender.Name), nil
	}
	plan, err := s.networks.ExplainAttach(controllerContainer(c))
	if err != nil {
		return "", err
	}
	return text + plan.In(dialectOf(ctx)), nil
}

// launcher tells what the launcher does once the network is there.
func launcher(c runtime.Container) string {
	command := strings.Join(slices.Concat(c.Config.Entrypoint, c.Config.Cmd), " ")
	return fmt.Sprintf(`First the network, by the lines below. Then a shim, the parent of the container's process, does nearly this:
  mount -t overlay -o lowerdir=%s,upperdir=UPPER,workdir=WORK none ROOT      # writes go to UPPER
  nsenter --net=THE-SANDBOX unshare --mount --uts --ipc --pid --cgroup --fork   # namespaces of its own
  mount -t proc proc ROOT/proc; mount -t sysfs sysfs ROOT/sys; mount -t tmpfs tmpfs ROOT/dev
  mount --bind hosts ROOT/etc/hosts        # and resolv.conf and hostname
  pivot_root ROOT; hostname %s             # then fewer capabilities, a seccomp filter
  exec %s`, strings.Join(lower(c), ":"), hostnameOf(c), command)
}

func hostnameOf(c runtime.Container) string {
	if c.Config.Hostname != "" {
		return c.Config.Hostname
	}
	return c.ID.Short()
}

// haltOf is what follows the end of a container.
func (s *Server) haltOf(ctx context.Context, c runtime.Container) (string, error) {
	plan, err := s.networks.ContainerCommands(c.ID)
	if errors.Is(err, linkspan.ErrNotFound) {
		return comment("Container %s has no network stack of its own: nothing would be undone.", c.Name), nil
	}
	return undone(ctx, "The network stack of container "+c.Name, plan), err
}

func (s *Server) explainStop(ctx context.Context, r *http.Request) (string, error) {
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return "", err
	}
	if !c.State.Running() {
		return comment("Container %s does not run: nothing would be done.", c.Name), nil
	}
	halt, err := s.haltOf(ctx, c)
	return comment("PID %d gets the signal to stop, and SIGKILL when its time is over; its cgroup and mounts go with it.", c.State.Pid) + halt, err
}

func (s *Server) explainKill(ctx context.Context, r *http.Request) (string, error) {
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return "", err
	}
	if !c.State.Running() {
		return "", linkspan.Errorf(linkspan.ErrConflict, "container %s is not running", c.ID)
	}
	signal := strings.ToUpper(strings.TrimPrefix(r.URL.Query().Get("signal"), "SIG"))
	if signal == "" {
		signal = "KILL"
	}
	halt, err := s.haltOf(ctx, c)
	return fmt.Sprintf("kill -%s %d\n", signal, c.State.Pid) + comment("Should it end by that:") + halt, err
}

func (s *Server) explainRestart(ctx context.Context, r *http.Request) (string, error) {
	stop, err := s.explainStop(ctx, r)
	return stop + comment("Then it would be started again, by steps like those, with another namespace and perhaps other addresses."), err
}

func (s *Server) explainFreeze(_ context.Context, r *http.Request) (string, error) {
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return "", err
	}
	return comment("The freezer of the cgroup linkspan/%s would be switched; the network stays as it is.", c.ID), nil
}

func (s *Server) explainRename(_ context.Context, r *http.Request) (string, error) {
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return "", err
	}
	return comment("Container %s would be known as %s, to the resolvers too. Nothing in the kernel bears its name.", c.Name, r.URL.Query().Get("name")), nil
}

func (s *Server) explainRemove(ctx context.Context, r *http.Request) (string, error) {
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return "", err
	}
	if c.State.Running() && !boolean(r, "force") {
		return "", linkspan.Errorf(linkspan.ErrConflict, "cannot remove container %q: container is running: stop the container before removing or force remove", "/"+c.Name)
	}
	text := ""
	if c.State.Running() {
		halt, err := s.haltOf(ctx, c)
		if err != nil {
			return "", err
		}
		text = fmt.Sprintf("kill -KILL %d\n", c.State.Pid) + halt
	}
	return text + comment("The record of container %s, its log and all that it wrote would be removed; static addresses become free.", c.Name), nil
}

// The routes below print what was done.

func (s *Server) networkCommands(w http.ResponseWriter, r *http.Request) error {
	plan, err := s.networks.NetworkCommands(variable(r, "ref"))
	if err != nil {
		return err
	}
	return writePlan(w, r, plan)
}

func (s *Server) containerCommands(w http.ResponseWriter, r *http.Request) error {
	c, err := s.containers.Get(variable(r, "ref"))
	if err != nil {
		return err
	}
	plan, err := s.networks.ContainerCommands(c.ID)
	if errors.Is(err, linkspan.ErrNotFound) {
		return writeScript(w, comment("Container %s has no network stack of its own now: nothing of it is in the kernel.", c.Name))
	}
	if err != nil {
		return err
	}
	return writePlan(w, r, plan)
}

func (s *Server) hostCommands(w http.ResponseWriter, r *http.Request) error {
	return writePlan(w, r, s.networks.HostCommands())
}

func writePlan(w http.ResponseWriter, r *http.Request, plan op.Plan) error {
	r, err := inDialect(r)
	if err != nil {
		return err
	}
	return writeScript(w, plan.In(dialectOf(r.Context())))
}
