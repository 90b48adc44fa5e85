// Command linkspan-shim is the parent of one container. The daemon starts it
// with a listening socket as descriptor 3; see package launch for what it is
// told there. With --init the same program is the container's PID 1.
package main

import (
	"os"

	"github.com/linkspan/linkspan/runtime/launch"
)

func main() {
	if os.Args[0] == launch.InitName {
		os.Exit(launch.Init(os.Args[1:]))
	}
	if err := launch.Serve(3); err != nil {
		os.Stderr.WriteString("linkspan-shim: " + err.Error() + "\n")
		os.Exit(1)
	}
}
