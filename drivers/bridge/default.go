package bridge

import (
	"strconv"

	"github.com/linkspan/linkspan/network"
)

// DefaultOptions returns the options of the predefined network "bridge": those
// that Docker shows for its own. An mtu of 0 is 1500 bytes.
func DefaultOptions(name string, mtu int, icc bool) map[string]string {
	if mtu == 0 {
		mtu = 1500
	}
	return map[string]string{
		OptionDefault:     "true",
		OptionICC:         strconv.FormatBool(icc),
		OptionMasquerade:  "true",
		OptionBinding:     "0.0.0.0",
		OptionName:        name,
		network.OptionMTU: strconv.Itoa(mtu),
	}
}
