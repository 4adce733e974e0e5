package wire

import "sort"

// numbering relates the numbers of messages on the wire, which have no gaps, to those of this side, where some messages
// were not sent because they are too large. Such messages are rare; the list of them is short.
type numbering struct {
	skipped []uint64 // numbers of this side, ascending
}

// skip says that the message with this number of this side is not sent. Numbers come in ascending order.
func (n *numbering) skip(local uint64) { n.skipped = append(n.skipped, local) }

// local returns this side's number of a message on the wire.
func (n *numbering) local(wire uint64) uint64 {
	// With k messages skipped before it, the number is wire+k: find the smallest k for which that is true.
	k := sort.Search(len(n.skipped), func(k int) bool { return n.skipped[k] > wire+uint64(k) })
	return wire + uint64(k)
}
