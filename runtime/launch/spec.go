package launch

// Spec is everything that the shim needs to know of one container. The daemon
// computes it; the shim decides nothing.
type Spec struct {
	ID     string
	Dir    string // of this container in the exec-root: the exit status is kept here
	Log    Log
	Netns  string // path of the network namespace; "" stays in the daemon's
	Lower  []string
	Upper  string // overlayfs: what the container writes
	Work   string // overlayfs: must be on the file system of Upper
	Brief  bool   // what is in Upper goes with the container's end: it need not reach the disk
	Host   string // host name
	Domain string // NIS domain name

	ReadonlyRoot    bool
	Privileged      bool
	WritableCgroups bool
	HostCgroupns    bool
	HostUts         bool
	Init            bool // a small init is PID 1, and the process its child
	Pid, Ipc        Share
	NoShm           bool // no /dev/shm
	Devices         []Device
	Mounts          []Mount
	Cgroups         []Cgroup
	ShmSize         int64 // bytes
	Sysctls         []string
	MaskedPaths     []string
	ReadonlyPaths   []string
	Process         Process

	Attached []Attach // one for each leading descriptor received
	Keep     int      // how many of those that follow are kept and never used
	Ports    []Port   // what is published: a descriptor for each port, at the end
}

// Log is where the output goes, in lines of Docker's json-file format.
type Log struct {
	Path     string // "" keeps none
	MaxSize  int64  // bytes after which a new file is begun; 0 is no limit
	Files    int    // how many files there may be, with the one that is written; 0 is 1
	Compress bool   // those that are no longer written, by gzip
}

// Share says whose namespace of a kind the container has. The zero value is
// one of its own.
type Share struct {
	Host bool
	Pid  int // a process whose namespace it is, as the shim sees it; 0 for none
}

func (s Share) own() bool { return !s.Host && s.Pid == 0 }

// Device is a device node.
type Device struct {
	Target       string // inside the container
	Mode         int    // type and permissions, as in struct stat
	Major, Minor int
	UID, GID     int
}

// Port is a row of published ports, whose sockets the shim holds for as long as
// the container lives.
type Port struct {
	Protocol string
	Host     string // address of the host
	First    int    // of the host's ports
	Count    int
	To       string // address and port of the container for First
	Serve    bool   // what reaches the sockets is passed on to the container
	Sources  []string
}

// Hold says which ports are published from now on. Sockets for the Fresh ones,
// one each, come with it; what is held and not Wanted is let go.
type Hold struct{ Wanted, Fresh []Port }

// Holding says which ports are held. Only what tells sockets apart is set.
type Holding struct{ Ports []Port }

// Mount is a bind mount of a path of the host, or a new file system.
type Mount struct {
	Source string // host path when Type is "bind"
	Target string // inside the container; made if missing
	Type   string // "bind" or a file system type
	Flags  int    // MS_*
	Data   string

	Subpath string // below Source, which links cannot lead out of; "" is Source itself
	TopOnly bool   // the flags are not for what is mounted below Source
}

// Cgroup is the container's directory in one hierarchy.
type Cgroup struct {
	Path    string // host path of the directory
	Name    string // directory below /sys/fs/cgroup; "" for a machine with v2 only
	Unified bool
}

// Process is what runs: as the container's PID 1, or beside it.
type Process struct {
	Args      []string
	Env       []string
	Dir       string // made if missing; "" is /
	User      string // name|uid[:group|gid] by the container's own files; "" is root
	Groups    []string
	Tty       bool
	Stdin     bool // false: /dev/null
	StdinOnce bool // the first client's end of input is the process's
	Rows      int
	Cols      int

	Caps       uint64 // permitted, effective and bounding set, as a mask
	Seccomp    []byte // struct sock_filter[]; empty for none
	NoNewPrivs bool
	Rlimits    []Rlimit
	OOMAdj     int
	Umask      int
}

// Rlimit is one argument of prlimit(2).
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}

// Exec asks for a further process in a running container.
type Exec struct {
	ID       string // names the session, for Attach, resize and signals
	Process  Process
	Attached []Attach // one for each descriptor received
}

// Attach asks for the streams of a session. A session with a terminal sends
// raw bytes; another sends Docker's frames: a byte of 1 or 2 for stdout or
// stderr, three of zero, four of length.
type Attach struct {
	Session               string // "" is the container's own process
	Stdin, Stdout, Stderr bool
}

// Control is a resize (A rows, B columns) or a signal (A its number).
type Control struct {
	Session string
	A, B    int
}

// Ack confirms. Offset is the length of the log at the moment an attach took
// effect: what is before it was not and will not be sent.
type Ack struct{ Offset int64 }

// Status tells how a start or a process ended.
type Status struct {
	Pid  int    // in the PID namespace of the shim
	Code int    // exit code: 0…255, 128+signal; 125…128 with a Text
	Text string // why the start failed
	At   int64  // nanoseconds since 1970 of the start, or of the exit
}

func (s *Spec) fields(c *coder) {
	c.str(&s.Log.Path)
	integer(c, &s.Log.MaxSize)
	integer(c, &s.Log.Files)
	c.flag(&s.Log.Compress)
	for _, v := range []*Share{&s.Pid, &s.Ipc} {
		c.flag(&v.Host)
		integer(c, &v.Pid)
	}
	records(c, &s.Devices, func(d *Device) {
		c.str(&d.Target)
		for _, v := range []*int{&d.Mode, &d.Major, &d.Minor, &d.UID, &d.GID} {
			integer(c, v)
		}
	})
	for _, v := range []*string{&s.ID, &s.Dir, &s.Netns, &s.Upper, &s.Work, &s.Host, &s.Domain} {
		c.str(v)
	}
	for _, v := range []*[]string{&s.Lower, &s.Sysctls, &s.MaskedPaths, &s.ReadonlyPaths} {
		c.strs(v)
	}
	for _, v := range []*bool{&s.ReadonlyRoot, &s.Privileged, &s.WritableCgroups, &s.HostCgroupns, &s.HostUts, &s.Init, &s.NoShm, &s.Brief} {
		c.flag(v)
	}
	integer(c, &s.ShmSize)
	records(c, &s.Mounts, func(m *Mount) {
		c.str(&m.Source)
		c.str(&m.Target)
		c.str(&m.Type)
		integer(c, &m.Flags)
		c.str(&m.Data)
		c.str(&m.Subpath)
		c.flag(&m.TopOnly)
	})
	records(c, &s.Cgroups, func(g *Cgroup) {
		c.str(&g.Path)
		c.str(&g.Name)
		c.flag(&g.Unified)
	})
	s.Process.fields(c)
	records(c, &s.Attached, func(a *Attach) { a.fields(c) })
	integer(c, &s.Keep)
	records(c, &s.Ports, func(p *Port) { p.fields(c) })
}

func (p *Port) fields(c *coder) {
	c.str(&p.Protocol)
	c.str(&p.Host)
	integer(c, &p.First)
	integer(c, &p.Count)
	c.str(&p.To)
	c.flag(&p.Serve)
	c.strs(&p.Sources)
}

func (h *Hold) fields(c *coder) {
	records(c, &h.Wanted, func(p *Port) { p.fields(c) })
	records(c, &h.Fresh, func(p *Port) { p.fields(c) })
}

func (h *Holding) fields(c *coder) { records(c, &h.Ports, func(p *Port) { p.fields(c) }) }

func (p *Process) fields(c *coder) {
	for _, v := range []*[]string{&p.Args, &p.Env, &p.Groups} {
		c.strs(v)
	}
	c.str(&p.Dir)
	c.str(&p.User)
	for _, v := range []*bool{&p.Tty, &p.Stdin, &p.StdinOnce, &p.NoNewPrivs} {
		c.flag(v)
	}
	for _, v := range []*int{&p.Rows, &p.Cols, &p.OOMAdj, &p.Umask} {
		integer(c, v)
	}
	integer(c, &p.Caps)
	c.bytes(&p.Seccomp)
	records(c, &p.Rlimits, func(l *Rlimit) {
		integer(c, &l.Resource)
		integer(c, &l.Soft)
		integer(c, &l.Hard)
	})
}

func (e *Exec) fields(c *coder) {
	c.str(&e.ID)
	e.Process.fields(c)
	records(c, &e.Attached, func(a *Attach) { a.fields(c) })
}

func (a *Attach) fields(c *coder) {
	c.str(&a.Session)
	c.flag(&a.Stdin)
	c.flag(&a.Stdout)
	c.flag(&a.Stderr)
}

func (m *Control) fields(c *coder) {
	c.str(&m.Session)
	integer(c, &m.A)
	integer(c, &m.B)
}

func (m *Ack) fields(c *coder) { integer(c, &m.Offset) }

func (s *Status) fields(c *coder) {
	integer(c, &s.Pid)
	integer(c, &s.Code)
	c.str(&s.Text)
	integer(c, &s.At)
}
