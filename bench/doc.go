// Package bench measures what Linkspan costs, beside what the kernel costs and
// what Debian's Docker costs, and says of each figure whether it meets its target.
//
//	make bench                       # all, with a table at the end: some ten minutes
//	make bench BENCH=ports           # only the cases whose name matches
//
// The daemon under test is bin/linkspan, driven through its socket as any client
// would. What is compared runs in turns, A B A B, so that a busy minute of the
// machine falls on both; a duration is the median of its rounds, with the
// fastest in brackets; a ratio is that of two medians.
//
// Traffic comes from this very process: one thread that blocks in write(2) in the
// one network namespace, one that blocks in read(2) in the other.
//
// The package consists of tests. As tests they run with the smallest numbers that
// make sense, so that they do not rot, and judge nothing: a figure is for a quiet
// machine, and for people.
package bench
