package kernel

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDeafness compares the program that all sockets share with the filter that a
// kernel without it gets: with either nothing is heard, and all of it afterwards.
func TestDeafness(t *testing.T) {
	shared, own := new(deafness), new(deafness)
	own.once.Do(func() {}) // as if the kernel had refused the program
	defer shared.close()
	for name, d := range map[string]*deafness{"shared": shared, "own": own} {
		t.Run(name, func(t *testing.T) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
			at, err := unix.Getsockname(fd)
			if err != nil {
				t.Fatal(err)
			}
			hears := func() bool {
				if err := unix.Sendto(fd, []byte("x"), 0, at); err != nil { // the loopback delivers before it returns
					t.Fatal(err)
				}
				_, err := unix.Read(fd, make([]byte, 8))
				if err != nil && !errors.Is(err, unix.EAGAIN) {
					t.Fatal(err)
				}
				return err == nil
			}
			if !hears() {
				t.Fatal("it is deaf already: the test shows nothing")
			}
			if err = d.attach(fd); err != nil {
				t.Fatal(err)
			}
			if hears() {
				t.Error("it hears")
			}
			if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
				t.Fatal(err)
			}
			if !hears() {
				t.Error("it does not hear again")
			}
		})
	}
	if shared.program <= 0 {
		t.Error("the program was not loaded: every socket pays for a filter of its own")
	}
}
