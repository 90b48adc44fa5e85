// Command linkspan-shim is the parent of one container. The daemon starts it
// with a listening socket as descriptor 3; see package launch for what it is
// told there.
package main

import (
	"os"

	"github.com/linkspan/linkspan/runtime/launch"
)

func main() {
	if err := launch.Serve(3); err != nil {
		os.Stderr.WriteString("linkspan-shim: " + err.Error() + "\n")
		os.Exit(1)
	}
}
