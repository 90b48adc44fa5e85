package api

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	apinetwork "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/runtime"
	"github.com/linkspan/linkspan/runtime/image"
)

// rootfsAnnotation is the annotation of a container that runs on a directory
// and has no image.
const rootfsAnnotation = "linkspan.rootfs"

// Warnings that a creation answers with.
const (
	portsDiscarded = "Published ports are discarded when using host network mode"
	emptyBindings  = "Following container port(s) have an empty list of port-bindings: %s. Such bindings will be discarded in a future version."
	macDeprecated  = "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
)

// createBody is the body of a creation, with a field that the types of today
// no longer have.
type createBody struct {
	container.CreateRequest
	MacAddress string
}

func (s *Server) createContainer(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid JSON: EOF")
	}
	var body createBody
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	request, warnings, err := s.creation(body, versionOf(r))
	if err != nil {
		return err
	}
	platform, err := image.ParsePlatform(r.URL.Query().Get("platform"))
	if err != nil {
		return err
	}
	release, err := s.useImage(&request, platform)
	if err != nil {
		return err
	}
	defer release()
	request.Name = r.URL.Query().Get("name")
	c, more, err := s.containers.Create(r.Context(), request)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, container.CreateResponse{ID: string(c.ID), Warnings: append(warnings, more...)})
	return nil
}

// creation reads what a client wants of a new container.
func (s *Server) creation(body createBody, v version) (runtime.Request, []string, error) {
	warnings := []string{}
	if body.Config == nil {
		return runtime.Request{}, nil, linkspan.Errorf(linkspan.ErrInvalid, "config cannot be empty in order to create a container")
	}
	request := runtime.Request{Config: body.Config, HostConfig: body.HostConfig, Networking: body.NetworkingConfig}
	if request.HostConfig == nil {
		request.HostConfig = &container.HostConfig{}
	}
	if request.Networking == nil {
		request.Networking = &apinetwork.NetworkingConfig{}
	}
	request.Rootfs = request.HostConfig.Annotations[rootfsAnnotation]
	if err := checkHostConfig(request.HostConfig); err != nil {
		return request, nil, err
	}
	if v < 40 && request.HostConfig.IpcMode == "" {
		request.HostConfig.IpcMode = container.IPCModeShareable
	}
	fillHostConfig(request.HostConfig)
	if filled := fillBindings(request.HostConfig.PortBindings); filled != "" && v >= 52 {
		warnings = append(warnings, fmt.Sprintf(emptyBindings, filled))
	}
	if err := checkEndpoints(request.Networking, v); err != nil {
		return request, nil, err
	}
	nameDefault(request.Networking)
	s.nameMode(request)
	if v < 52 && body.MacAddress != "" {
		if err := migrateMAC(body.MacAddress, request.HostConfig.NetworkMode, request.Networking); err != nil {
			return request, nil, err
		}
		if v >= 44 {
			warnings = append(warnings, macDeprecated)
		}
	}
	moved, err := migrateSysctls(request, v)
	if err != nil {
		return request, nil, err
	}
	warnings = append(warnings, moved...)
	if err := s.networks.CheckWishes(controller.Container{Config: request.Config, HostConfig: request.HostConfig, Networking: request.Networking}); err != nil {
		return request, nil, err
	}
	s.borrow(request)
	if request.HostConfig.NetworkMode.IsHost() && (len(request.HostConfig.PortBindings) > 0 || request.HostConfig.PublishAllPorts) {
		warnings = append(warnings, portsDiscarded)
	}
	return request, warnings, nil
}

// useImage puts in what the image has to give. It comes last, since a client
// that hears of a missing image, or of one for another platform than it wants,
// asks for it to be pulled. The image stays until release is called.
func (s *Server) useImage(q *runtime.Request, platform ocispec.Platform) (release func(), err error) {
	if q.Rootfs != "" || q.Config.Image == "" {
		return func() {}, nil
	}
	i, release, err := s.images.Use(q.Config.Image)
	if err != nil {
		return nil, err
	}
	if platform.OS != "" {
		err = i.CheckPlatform(q.Config.Image, platform)
	}
	if err == nil {
		err = i.Merge(q.Config)
	}
	if err != nil {
		release()
		return nil, err
	}
	q.Image, q.Lower = string(i.ID), i.Lower
	return release, nil
}

// checkHostConfig refuses what is wrong in itself.
func checkHostConfig(h *container.HostConfig) error {
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "%w", err)
	}
	if _, nameless := h.Annotations[""]; nameless {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid Annotations: the empty string is not permitted as an annotation key")
	}
	for _, m := range h.Mounts {
		if m.Type != mount.TypeBind || !filepath.IsAbs(m.Source) || (m.BindOptions != nil && m.BindOptions.CreateMountpoint) {
			continue
		}
		if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid mount config for type \"bind\": bind source path does not exist: %s", m.Source)
		}
	}
	return runtime.CheckLogging(h)
}

// fillHostConfig puts in what a client that left it out will find in effect.
func fillHostConfig(h *container.HostConfig) {
	if h.NetworkMode == "" || h.NetworkMode == "default" {
		h.NetworkMode = "bridge"
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = "json-file"
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if h.IpcMode == "" {
		h.IpcMode = container.IPCModePrivate
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = container.CgroupnsModePrivate
	}
	if h.ShmSize == 0 {
		h.ShmSize = 64 << 20
	}
}

// fillBindings gives ports with an empty list of bindings one that leaves all to
// us, as Docker does, and names them.
func fillBindings(ports apinetwork.PortMap) string {
	var filled []string
	for port, bindings := range ports {
		if len(bindings) == 0 {
			ports[port] = []apinetwork.PortBinding{{}}
			filled = append(filled, port.String())
		}
	}
	slices.Sort(filled)
	return strings.Join(filled, ", ")
}

// borrow fills in what a container takes over from those whose namespaces it
// joins. One that does not exist is the start's business.
func (s *Server) borrow(q runtime.Request) {
	h := q.HostConfig
	s.nameDonor((*string)(&h.IpcMode))
	s.nameDonor((*string)(&h.PidMode))
	if c, borrows := s.nameDonor((*string)(&h.NetworkMode)); borrows {
		q.Config.Hostname, q.Config.Domainname = hostnameOf(c), c.Config.Domainname
	}
}

// nameDonor writes a donor's ID into the mode of a namespace: a name may be
// given to another container later; an ID may not.
func (s *Server) nameDonor(mode *string) (donor runtime.Container, borrows bool) {
	ref, borrows := strings.CutPrefix(*mode, "container:")
	if !borrows || ref == "" {
		return donor, false
	}
	donor, err := s.containers.Get(ref)
	if err != nil {
		return donor, false
	}
	*mode = "container:" + string(donor.ID)
	return donor, true
}

func checkEndpoints(n *apinetwork.NetworkingConfig, v version) error {
	if names := slices.Sorted(maps.Keys(n.EndpointsConfig)); v < 44 && len(names) > 1 {
		return linkspan.Errorf(linkspan.ErrInvalid, "Container cannot be created with multiple network endpoints: %s", strings.Join(names, ", "))
	}
	return nil
}

// nameDefault gives the endpoint on the default network that network's name.
func nameDefault(n *apinetwork.NetworkingConfig) {
	if settings, given := n.EndpointsConfig["default"]; given {
		delete(n.EndpointsConfig, "default")
		n.EndpointsConfig["bridge"] = settings
	}
}

// nameMode gives the endpoint on the network of the mode the mode's own word for
// it: a client may say the network's name in one place and its ID in the other.
func (s *Server) nameMode(q runtime.Request) {
	mode, endpoints := string(q.HostConfig.NetworkMode), q.Networking.EndpointsConfig
	if _, there := endpoints[mode]; there || !q.HostConfig.NetworkMode.IsUserDefined() || len(endpoints) == 0 {
		return
	}
	n, err := s.networks.Network(mode)
	if err != nil {
		return // what does not exist is refused later, in better words
	}
	for name, settings := range endpoints {
		if other, err := s.networks.Network(name); err == nil && other.ID == n.ID {
			delete(endpoints, name)
			endpoints[mode] = settings
			return
		}
	}
}
