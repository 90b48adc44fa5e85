package network

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/linkspan/linkspan"
)

// Names of the options that say how a new endpoint announces its addresses.
const (
	OptionAnnounceCount = "com.docker.network.advertise_addr_nmsgs"
	OptionAnnounceEvery = "com.docker.network.advertise_addr_ms"
)

// Announcements says how often a new endpoint tells its neighbours which
// addresses it has (unsolicited ARP and neighbour advertisements), and how long
// it waits in between: three times a second apart, unless the options say
// otherwise. All that is wrong with those is one error of kind
// linkspan.ErrInvalid.
func (n Network) Announcements() (count int, every time.Duration, err error) {
	count, countErr := bounded(n.Options, OptionAnnounceCount, "an integer", 3, 0, 3)
	millis, everyErr := bounded(n.Options, OptionAnnounceEvery, "integer milliseconds", 1000, 100, 2000)
	if err = errors.Join(everyErr, countErr); err != nil {
		return 0, 0, linkspan.Errorf(linkspan.ErrInvalid, "%w", err)
	}
	return count, time.Duration(millis) * time.Millisecond, nil
}

func bounded(options map[string]string, label, what string, absent, least, most int) (int, error) {
	text, given := options[label]
	if !given {
		return absent, nil
	}
	value, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("value for option %s %q must be %s", label, text, what)
	}
	if value < least || value > most {
		return 0, fmt.Errorf("%s must be in the range %d to %d", label, least, most)
	}
	return value, nil
}
