package linkspan

import (
	"crypto/rand"
	"encoding/hex"
)

// ID names a record for as long as it exists: 64 lower-case hexadecimal
// digits, 256 random bits, in the form that Docker clients expect.
type ID string

// NewID returns a fresh random ID. It draws again when the first twelve
// digits would read as a decimal number, since those twelve double as a host
// name and many programs take an all-digit host name for an address.
func NewID() ID {
	for {
		var raw [32]byte
		rand.Read(raw[:]) // never fails: see crypto/rand.Read
		id := ID(hex.EncodeToString(raw[:]))
		if !allDigits(id.Short()) {
			return id
		}
	}
}

// Short returns the first twelve digits: enough to tell records of one
// machine apart, and short enough for a link name. An ID of fewer digits is
// returned whole.
func (id ID) Short() string { return id.Prefix(12) }

// Prefix returns the first n digits, or all of a shorter ID.
func (id ID) Prefix(n int) string {
	if len(id) < n {
		return string(id)
	}
	return string(id[:n])
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
