// Package check tries a plugin: it makes every call of the protocol, in the order
// that an engine does and in some that only a crash brings about, and says what
// an engine would choke on.
//
// The driver under test makes real links in its own network namespace, which must
// be that of the tester, or links cannot be seen. Networks and pools are from
// 198.18.0.0/15, which is set aside for such tests (RFC 2544), and are deleted
// again.
package check
