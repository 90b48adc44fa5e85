// Package archive moves files between trees and tar streams.
//
// By hand:
//
//	tar -C ROOT/etc -c hosts | tar -C /tmp -x          # out of a container
//	find UPPER -type c -printf 'D /%P\n' -o -printf 'C /%P\n'   # what it changed
//
// All functions take paths as the calling thread sees them, and are called on
// one whose root directory is a container's (see package launch): there the
// kernel keeps every ".." and every symbolic link within it, so nothing here
// has to check where a path leads. They start no goroutines, which would run
// on other threads. A file that changes while it is read gets into the stream
// as long as its header says, cut off or filled up with zeros.
package archive
