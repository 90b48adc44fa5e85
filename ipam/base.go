package ipam

import (
	"crypto/sha256"
	"net/netip"
	"strconv"
	"strings"

	"github.com/linkspan/linkspan"
)

// Base is a default address pool: a block that is cut into subnets of one
// size. Its JSON form is that of default-address-pools in the daemon's
// configuration file and of DefaultAddressPools in GET /info.
type Base struct {
	Prefix netip.Prefix `json:"Base"`
	Size   int          `json:"Size"` // prefix length of each subnet, in bits
}

// DefaultBases returns the IPv4 pools of a daemon that was given none: fifteen
// /16 in 172.16.0.0/12, then sixteen /20 in 192.168.0.0/16. 172.16.0.0/16 is
// left out on purpose, as everywhere in the Docker world.
func DefaultBases() []Base {
	return []Base{
		{netip.MustParsePrefix("172.17.0.0/16"), 16},
		{netip.MustParsePrefix("172.18.0.0/16"), 16},
		{netip.MustParsePrefix("172.19.0.0/16"), 16},
		{netip.MustParsePrefix("172.20.0.0/14"), 16},
		{netip.MustParsePrefix("172.24.0.0/14"), 16},
		{netip.MustParsePrefix("172.28.0.0/14"), 16},
		{netip.MustParsePrefix("192.168.0.0/16"), 20},
	}
}

// DefaultBases6 returns the IPv6 pool of a daemon that was given none: one
// unique local /48 (RFC 4193), cut into /64. Its global ID is the low forty
// bits of the first eight bytes of SHA-256 over hostID, so that one host always
// gets the same block and two hosts almost never do.
func DefaultBases6(hostID string) []Base {
	sum := sha256.Sum256([]byte(hostID))
	raw := [16]byte{0: 0xfd}
	copy(raw[1:6], sum[3:8])
	return []Base{{netip.PrefixFrom(netip.AddrFrom16(raw), 48), 64}}
}

// ClusterBases returns the pool for networks that span hosts.
func ClusterBases() []Base {
	return []Base{{netip.MustParsePrefix("10.0.0.0/8"), 24}}
}

// Bases returns the pools that are in force, by family: the configured ones,
// and the defaults for a family that has none configured.
func Bases(configured []Base, hostID string) (v4, v6 []Base) {
	for _, b := range configured {
		if b.Prefix.Addr().Is4() {
			v4 = append(v4, b)
		} else {
			v6 = append(v6, b)
		}
	}
	if len(v4) == 0 {
		v4 = DefaultBases()
	}
	if len(v6) == 0 {
		v6 = DefaultBases6(hostID)
	}
	return v4, v6
}

// ParseBase reads the value of --default-address-pool, such as
// "base=10.201.0.0/16,size=24". Its errors are of kind ErrInvalid.
func ParseBase(value string) (Base, error) {
	var b Base
	seen := map[string]bool{}
	for field := range strings.SplitSeq(value, ",") {
		key, text, _ := strings.Cut(field, "=")
		if seen[key] {
			return Base{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid default address pool %q: %s is given twice", value, key)
		}
		seen[key] = true
		var err error
		switch key {
		case "base":
			b.Prefix, err = netip.ParsePrefix(text)
		case "size":
			b.Size, err = strconv.Atoi(text)
		default:
			return Base{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid default address pool %q: unknown field %q; write base=CIDR,size=BITS", value, key)
		}
		if err != nil {
			return Base{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid default address pool %q: parsing %s: %w", value, key, err)
		}
	}
	if !seen["base"] || !seen["size"] {
		return Base{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid default address pool %q: write base=CIDR,size=BITS", value)
	}
	if err := b.Validate(); err != nil {
		return Base{}, err
	}
	return b, nil
}

// String returns the form that ParseBase reads.
func (b Base) String() string {
	return "base=" + b.Prefix.String() + ",size=" + strconv.Itoa(b.Size)
}

// Validate tells why b cannot be cut into subnets. Its errors are of kind
// ErrInvalid.
func (b Base) Validate() error {
	p := b.Prefix
	switch {
	case !p.IsValid():
		return linkspan.Errorf(linkspan.ErrInvalid, "default address pool has no base; write base=CIDR,size=BITS")
	case p.Addr().Is4In6():
		return linkspan.Errorf(linkspan.ErrInvalid, "default address pool %s is an IPv4 block in IPv6 clothes; write the IPv4 block", p)
	case p != p.Masked():
		return linkspan.Errorf(linkspan.ErrInvalid, "default address pool %s is not in canonical form: it should be %s", p, p.Masked())
	case b.Size < p.Bits():
		return linkspan.Errorf(linkspan.ErrInvalid, "default address pool %s has a smaller prefix (/%d) than the target size of that pool (/%d)", p, p.Bits(), b.Size)
	case b.Size > p.Addr().BitLen():
		return linkspan.Errorf(linkspan.ErrInvalid, "default address pool %s cannot have subnets of size /%d: an address has %d bits", p, b.Size, p.Addr().BitLen())
	}
	return nil
}
