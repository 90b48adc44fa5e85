package op

// Bearer is an op whose undoing takes along what others of its plan did: a link
// that is cut off is down, and with a namespace goes all that was born in it. An
// Executor does not undo those one by one: each would wait its turn for the lock
// that all changes of links share.
type Bearer interface {
	Bears(other Op) bool
}

// borne tells whether a step of a plan goes with an earlier one.
func borne(plan Plan, i int) bool {
	for _, earlier := range plan[:i] {
		if bearer, bears := earlier.Op.(Bearer); bears && bearer.Bears(plan[i].Op) {
			return true
		}
	}
	return false
}

// Bears tells that both ends are down when the pair is cut off.
func (o AddVeth) Bears(other Op) bool {
	up, raises := other.(interface{ Raises() (ns, link string) })
	if !raises {
		return false
	}
	ns, link := up.Raises()
	return ns == "" && link == o.Name || ns == o.PeerNS && link == o.Peer
}

// Raises says which link comes up.
func (o SetUp) Raises() (ns, link string) { return o.NS, o.Link }

// Native is an op whose effect was born in a pinned namespace and cannot leave it.
type Native interface {
	Home() (ns string) // empty: there is none
}

// Bears tells that the namespace takes along what was born in it.
func (o AddNetns) Bears(other Op) bool {
	native, ok := other.(Native)
	return ok && native.Home() == o.Name
}

// Home is the link's namespace if that is the loopback: every other link may
// leave its namespace.
func (o SetUp) Home() (ns string) {
	if o.Link == "lo" {
		return o.NS
	}
	return ""
}
