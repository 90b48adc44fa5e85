package lab

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/linkspan/linkspan/kernel"
)

// Rate is in bits per second, written with tc(8)'s units: 64kbit, 1.5mbit, 1gbit.
type Rate uint64

// ParseRate reads a rate, which is at least 8 kbit/s: below that one frame would
// take seconds.
func ParseRate(text string) (Rate, error) {
	for _, unit := range []struct {
		word  string
		scale float64
	}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"bit", 1}} {
		number, fits := strings.CutSuffix(strings.ToLower(text), unit.word)
		if !fits {
			continue
		}
		value, err := strconv.ParseFloat(number, 64)
		if rate := value * unit.scale; err == nil && rate >= 8e3 && rate <= 1e12 {
			return Rate(math.Round(rate/8)) * 8, nil
		}
	}
	return 0, fmt.Errorf("%q is no rate: want 8kbit to 1000gbit, as 64kbit or 1.5mbit", text)
}

func (r Rate) String() string {
	for _, unit := range []struct {
		word  string
		scale Rate
	}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}} {
		if r >= unit.scale {
			return strconv.FormatFloat(float64(r)/float64(unit.scale), 'f', -1, 64) + unit.word
		}
	}
	return strconv.FormatUint(uint64(r), 10) + "bit"
}

// Share is a part of a million, written in per cent: 5%, 0.01%.
type Share uint32

// ParseShare reads a share of frames.
func ParseShare(text string) (Share, error) {
	number, _ := strings.CutSuffix(text, "%")
	value, err := strconv.ParseFloat(number, 64)
	share := math.Round(value * kernel.LossScale / 100)
	if err != nil || number == text || !(share >= 1 && share <= kernel.LossScale) {
		return 0, fmt.Errorf("%q is no share of frames: want 0.0001%% to 100%%", text)
	}
	return Share(share), nil
}

func (s Share) String() string {
	return strconv.FormatFloat(float64(s)*100/kernel.LossScale, 'f', -1, 64) + "%"
}

// Delay is how long a frame is on its way.
type Delay time.Duration

// ParseDelay reads a delay of at most a minute, in whole microseconds.
func ParseDelay(text string) (Delay, error) {
	value, err := time.ParseDuration(text)
	if err != nil || value < time.Microsecond || value > time.Minute || value%time.Microsecond != 0 {
		return 0, fmt.Errorf("%q is no delay: want 1us to 60s, as 20ms", text)
	}
	return Delay(value), nil
}

func (d Delay) String() string { return time.Duration(d).String() }

// UnmarshalYAML reads 1mbit.
func (r *Rate) UnmarshalYAML(node ast.Node) (err error) {
	*r, err = scalar(node, ParseRate)
	return err
}

// UnmarshalYAML reads 5%.
func (s *Share) UnmarshalYAML(node ast.Node) (err error) {
	*s, err = scalar(node, ParseShare)
	return err
}

// UnmarshalYAML reads 20ms.
func (d *Delay) UnmarshalYAML(node ast.Node) (err error) {
	*d, err = scalar(node, ParseDelay)
	return err
}

// MarshalYAML writes 1mbit.
func (r Rate) MarshalYAML() (any, error) { return r.String(), nil }

// MarshalYAML writes 5%.
func (s Share) MarshalYAML() (any, error) { return s.String(), nil }

// MarshalYAML writes 20ms.
func (d Delay) MarshalYAML() (any, error) { return d.String(), nil }

// String is what is wrong with a cable, in the words of the file; empty if
// nothing is.
func (i Impairment) String() string {
	var words []string
	if i.Rate != 0 {
		words = append(words, "rate "+i.Rate.String())
	}
	if i.Loss != 0 {
		words = append(words, "loss "+i.Loss.String())
	}
	if i.Delay != 0 {
		words = append(words, "delay "+i.Delay.String())
	}
	return strings.Join(words, ", ")
}
