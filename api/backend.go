package api

import (
	"context"
	"io"

	"github.com/moby/moby/api/types/container"
	apiimage "github.com/moby/moby/api/types/image"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/runtime"
	"github.com/linkspan/linkspan/runtime/image"
	"github.com/linkspan/linkspan/runtime/volume"
	"github.com/linkspan/linkspan/store/cluster"
)

// Networking is what the network routes need; *controller.Controller has it.
// It is a sum of small interfaces, one for each family of routes, so that a
// test fakes only the family that it is about.
type Networking interface {
	networkReader
	peerReader
	networkMaker
	networkUpdater
	diagnoser
	mender
	connector
	explainer
	connectionExplainer
	publisher
	linker
	judge
	teller
}

type networkReader interface {
	Network(ref string) (network.Network, error)
	Networks() []network.Network
	Endpoints(network linkspan.ID) []endpoint.Endpoint
	Status(network linkspan.ID) []controller.PoolStatus
}

type peerReader interface {
	Peers(network.Network) []cluster.Member
}

type networkMaker interface {
	DefaultOptions(driver string) map[string]string
	CreateNetwork(context.Context, controller.NetworkSpec) (network.Network, error)
	RemoveNetwork(ctx context.Context, ref string) error
	Prune(context.Context, func(network.Network) bool) ([]string, error)
}

type connector interface {
	CheckWishes(controller.Container) error
	Connect(ctx context.Context, ref string, owner linkspan.ID, settings *apinetwork.EndpointSettings) error
	Disconnect(ctx context.Context, ref string, owner linkspan.ID, force bool) error
	Rename(owner linkspan.ID, name string) error
	Settings(owner linkspan.ID) container.NetworkSettings
	Cables(owner linkspan.ID) ([]controller.Cable, error)
}

type linker interface {
	Linked(owner linkspan.ID) []controller.Linked
	LinkNames(target linkspan.ID) []string
	Unlink(name string) error
}

type connectionExplainer interface {
	ExplainConnect(ref string, owner linkspan.ID, settings *apinetwork.EndpointSettings) (op.Plan, error)
	ExplainDisconnect(ref string, owner linkspan.ID) (op.Plan, error)
}

type explainer interface {
	ExplainCreate(context.Context, controller.NetworkSpec) (op.Plan, error)
	ExplainRemove(ref string) (op.Plan, error)
	ExplainAttach(controller.Container) (op.Plan, error)
}

type teller interface {
	NetworkCommands(ref string) (op.Plan, error)
	ContainerCommands(owner linkspan.ID) (op.Plan, error)
	HostCommands() op.Plan
}

// Containers is what the container routes need; *runtime.Runtime has it. It is
// a sum of small interfaces, as Networking is.
type Containers interface {
	containerRecords
	lifecycle
	freezer
	observer
	terminal
	execs
	measurer
	files
}

type containerRecords interface {
	Create(context.Context, runtime.Request) (c runtime.Container, warnings []string, err error)
	Get(ref string) (runtime.Container, error)
	List() []runtime.Container
	Rename(ctx context.Context, ref, name string) error
}

type lifecycle interface {
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, o runtime.StopOptions) error
	Kill(ctx context.Context, ref, signal string) error
	Remove(ctx context.Context, ref string, o runtime.RemoveOptions) error
}

type freezer interface {
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
}

type observer interface {
	Waiter(ref string, condition container.WaitCondition) (*runtime.Waiter, error)
	Top(ctx context.Context, ref, args string) (container.TopResponse, error)
	Logs(ctx context.Context, ref string, o runtime.LogOptions, w io.Writer) error
}

type measurer interface {
	Stats(ctx context.Context, ref string) (container.StatsResponse, error)
	Size(ctx context.Context, ref string, whole bool) (written, all int64, err error)
	Update(ctx context.Context, ref string, q container.UpdateConfig) (warnings []string, err error)
}

type terminal interface {
	Attach(ctx context.Context, ref string, o runtime.AttachOptions) (runtime.Stream, error)
	Resize(ctx context.Context, ref string, rows, cols int) error
	ExecResize(ctx context.Context, id string, rows, cols int) error
}

type execs interface {
	ExecCreate(ctx context.Context, ref string, q container.ExecCreateRequest) (id string, err error)
	ExecStart(ctx context.Context, id string, o container.ExecStartRequest) (runtime.Stream, error)
	ExecInspect(id string) (runtime.Exec, error)
	Execs(id linkspan.ID) []string
	ExecWait(ctx context.Context, id string) (runtime.Exec, error)
}

// Images is what the image routes need; *image.Store has it.
type Images interface {
	imageReader
	imageMaker
	imageRemover
	imageArchiver
	registryClient
}

type imageReader interface {
	List() []image.Image
	Get(ref string) (image.Image, error)
	Use(ref string) (i image.Image, release func(), err error)
	History(ref string) ([]apiimage.HistoryResponseItem, error)
	Size() int64
	SizeOf(layers map[string]bool) int64
}

type imageMaker interface {
	Import(r io.Reader, o image.ImportOptions) (image.Image, error)
	Commit(layer io.Reader, o image.CommitOptions) (image.Image, error)
	Tag(ref, name string) error
}

type imageRemover interface {
	Remove(ref string, force bool) ([]apiimage.DeleteResponse, error)
	Prune(which func(image.Image) bool) (gone []apiimage.DeleteResponse, reclaimed uint64, err error)
}

type imageArchiver interface {
	Load(r io.Reader, want ocispec.Platform, tell image.Progress) error
	Save(refs []string, w func() io.Writer) error
}

type registryClient interface {
	Pull(ctx context.Context, ref string, want ocispec.Platform, c image.Credentials, tell image.Progress) error
	Push(ctx context.Context, ref string, all bool, c image.Credentials, tell image.Progress) error
	Remote(ctx context.Context, ref string, c image.Credentials) (registry.DistributionInspect, error)
	Login(ctx context.Context, c image.Credentials) error
}

type files interface {
	PathStat(ctx context.Context, ref, path string) (container.PathStat, error)
	CopyOut(ctx context.Context, ref, path string, begin func(container.PathStat) io.Writer) error
	CopyIn(ctx context.Context, ref, path string, content io.Reader, keepKinds, own bool) error
	Export(ctx context.Context, ref string, begin func() io.Writer) error
	Changes(ctx context.Context, ref string) ([]container.FilesystemChange, error)
	Layer(ctx context.Context, ref string, w io.Writer) error
}

// Volumes is what the volume routes need; *volume.Store has it.
type Volumes interface {
	volumeReader
	volumeMaker
}

type volumeReader interface {
	Get(name string) (volume.Volume, error)
	List() []volume.Volume
	Users() map[string][]linkspan.ID
}

type volumeMaker interface {
	Create(q volume.Request) (volume.Volume, error)
	Remove(name string) error
	Prune(which func(volume.Volume) bool) (names []string, reclaimed uint64, err error)
}
