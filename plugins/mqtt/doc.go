// Package mqtt is the transport to MQTT 3.1.1 brokers.
//
// A connection has one client for everything that is published, and each subscription has a client of its own: an MQTT
// broker wants acknowledgements in the order of delivery, so two feeds behind one client would hold each other up. A
// subscription with QoS 1 or 2 is a persistent session under a stable client id; ending the client without acknowledging
// is what gives messages back to the broker, for MQTT knows no other refusal.
//
// The client library does the protocol; what it does not do well is done underneath it, in the net.Conn that it is given
// (see link): noticing silence, not reading while nobody wants messages, acknowledging many messages with one write, and
// refusing bytes that the library would not survive.
//
// Settings, options and limits are in docs/transports/mqtt.md.
package mqtt
