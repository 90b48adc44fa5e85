// Package resolvconf reads the host's resolv.conf and writes a sandbox's.
//
// resolv.conf(5) is how a C library learns whom to ask and what to append to
// a short name. A program in a sandbox cannot use the host's copy as it is: the
// host's 127.0.0.53 means something else inside, and names of the network are
// known only to the resolver at 127.0.0.11. By hand:
//
//	cat /etc/resolv.conf                                # the host's
//	printf 'nameserver 127.0.0.11\noptions ndots:0\n' > sandbox/resolv.conf
//	mount --bind sandbox/resolv.conf rootfs/etc/resolv.conf
//
// Parse reads a file, Build derives from it the sandbox's, in one of three
// modes, and says which servers the resolver at 127.0.0.11 has to ask, each
// from which side:
//
//	Internal  user networks     nameserver 127.0.0.11; the servers move to the resolver
//	Legacy    default bridge    the host's servers, without those on the loopback
//	HostMode  host's namespace  the host's file as it is
//
// Everything here is a pure function of its arguments but for Source, which is
// given the function that reads files, and Watch, which tells when the host's
// file may read otherwise.
package resolvconf
