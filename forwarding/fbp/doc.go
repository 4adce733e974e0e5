// Package fbp has the messages of the FBP network protocol, versions 0.7 and 0.8, as clients and runtimes send them over
// any link: the envelope, a type for each payload, the schemas, and which capability allows what. It is not for answering
// them, and not for carrying them.
//
// Nothing in the program uses it yet.
//
// # Reading
//
// Whatever a client sends can be answered, as the example shows: [DecodeInput] reads the envelope and takes the secret out of
// it, [Input.Parse] the payload; the error of either goes back with [Input.Fail], on the request's sub-protocol and with its
// id.
//
// What is read is taken as clients are, not as the schema would have them: keys that there are none of are dropped at each
// level that the protocol defines, null is no key where a key need not be, and positions are rounded. What is not taken, is
// refused with the reason: a key twice where the protocol defines keys, half surrogate pairs in names, invalid UTF-8, too
// many levels.
//
// # Writing
//
// What [NewOutput] and [NewInput] return has passed the schemas of the fbp-protocol package, test/peers/fbp compares the
// two. Data, metadata and ports' defaults are raw JSON and are never encoded anew: order of keys and spelling of numbers
// stay, only space between tokens goes. An [Output] is encoded once for many clients; each gets its own ResponseTo.
//
// # Rules
//
//   - Nothing outside of a client's capabilities is sent to it: [Capabilities.MayReceive]. Errors that answer are sent always.
//   - Secrets go in with [Input.Append] and come out with [Secret.Reveal], and are in no other output, error or log.
//   - The texts of errors name keys of the protocol, never what somebody has sent.
//   - Everything here is a value; functions and methods may be called concurrently.
package fbp
