package op

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Plan is a list of steps, done in order and undone in reverse.
type Plan []Step

// String returns the plan as a commented shell script.
func (p Plan) String() string { return p.In(IP) }

// In is String in another dialect.
func (p Plan) In(dialect Dialect) string {
	var script strings.Builder
	for i, step := range p {
		if i > 0 {
			script.WriteByte('\n')
		}
		for line := range strings.SplitSeq(step.Why, "\n") {
			fmt.Fprintf(&script, "# %s\n", line)
		}
		script.WriteString(dialect.Command(step.Op))
		script.WriteByte('\n')
	}
	return script.String()
}

// Codec translates between plans and their JSON form. It knows each kind of Op
// by a name that must never change, since stored plans outlive a release.
type Codec struct {
	kinds Kinds
	names map[reflect.Type]string
}

// NewCodec returns a Codec for the kernel's own ops and those of the given
// lists, which other packages offer (see Kinds). It panics if two kinds share
// a name: that is a mistake of the programmer.
func NewCodec(lists ...Kinds) *Codec {
	c := &Codec{kinds: make(Kinds), names: make(map[reflect.Type]string)}
	for _, kinds := range append([]Kinds{kernelKinds()}, lists...) {
		for name, blank := range kinds {
			if _, taken := c.kinds[name]; taken {
				panic("op: two kinds of op are called " + name)
			}
			c.kinds[name], c.names[reflect.TypeOf(blank)] = blank, name
		}
	}
	return c
}

// Kinds names kinds of Op, each by a blank one: what is read from a store is
// filled into a copy of it. A blank is a zero value, unless its ops need
// somebody besides the kernel to act: it then holds the way to them, in fields
// that JSON leaves out.
type Kinds map[string]Op

type storedStep struct {
	Why  string          `json:"why,omitempty"`
	Kind string          `json:"kind"`
	Op   json.RawMessage `json:"op"`
}

// Marshal returns the JSON form of a plan.
func (c *Codec) Marshal(p Plan) ([]byte, error) {
	stored := make([]storedStep, len(p))
	for i, step := range p {
		name, known := c.names[reflect.TypeOf(step.Op)]
		if !known {
			return nil, fmt.Errorf("storing a plan: no name is known for an op of type %T", step.Op)
		}
		raw, err := json.Marshal(step.Op)
		if err != nil {
			return nil, fmt.Errorf("storing op %s: %w", name, err)
		}
		stored[i] = storedStep{step.Why, name, raw}
	}
	return json.Marshal(stored)
}

// Unmarshal is the inverse of Marshal. A kind or a field that this release does
// not know is an error: half a plan must not be undone.
func (c *Codec) Unmarshal(data []byte) (Plan, error) {
	var stored []storedStep
	if err := json.Unmarshal(data, &stored); err != nil {
		return nil, fmt.Errorf("reading a stored plan: %w", err)
	}
	plan := make(Plan, len(stored))
	for i, s := range stored {
		blank, known := c.kinds[s.Kind]
		if !known {
			return nil, fmt.Errorf("reading a stored plan: step %d is of unknown kind %q", i+1, s.Kind)
		}
		value := reflect.New(reflect.TypeOf(blank))
		value.Elem().Set(reflect.ValueOf(blank))
		decoder := json.NewDecoder(bytes.NewReader(s.Op))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(value.Interface()); err != nil {
			return nil, fmt.Errorf("reading a stored plan: step %d (%s): %w", i+1, s.Kind, err)
		}
		plan[i] = Step{s.Why, value.Elem().Interface().(Op)}
	}
	return plan, nil
}
