// Package graph is the flow-based program as data: nodes with their components, edges between ports, initial packets,
// exported ports, groups and properties; the changes that clients make to them; and the two texts such a graph is kept in,
// the .fbp language and FBP JSON.
//
// A change is also a value, a [Change], named and written as the FBP protocol does: [Apply] makes it, and says what clients
// have to be told and what takes it back. [Diff] finds the changes between two graphs, [Rebase] fits changes to a graph that
// has moved on.
//
// It is not for running anything: what a component is, which broker a port is bound to and whether an edge flows is the
// business of others.
//
// # Reading
//
// [Load] picks the format by the file's ending; [ParseFBP] and [ParseJSON] take bytes. All report everything that is wrong
// at once, as [Errors] with file, line and column. A graph comes out as the npm packages fbp 1.8 and fbp-graph read it;
// where those drop an edge or a packet without a word, the parsers here refuse the text instead.
//
// # Writing back
//
// A graph remembers the text that it came from. Written in the same format, what was not changed stays as it stood: order,
// comments, spacing, keys that mean nothing to this package. A graph that nobody changed is written byte for byte.
// [Graph.LostInFBP] names what the .fbp language has no words for.
package graph
