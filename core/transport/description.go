package transport

import "encoding/json"

// Description says what a driver is. It is the same for the life of a driver.
type Description struct {
	// Name is the transport's name: the first label of a broker block, and the suffix of flogate-transport-<name>.
	Name string
	// Version of the driver, for people.
	Version string
	// Summary is one sentence for people.
	Summary string
	// Schemes are the URL schemes of its brokers, the usual one first: "mqtt", "mqtts".
	Schemes []string
	// Capabilities name the optional parts of the contract that the driver has, of the Cap constants.
	Capabilities []string
	// Config, Source and Sink are the schemas of the broker block's body, and of a port's options in both directions.
	Config, Source, Sink Schema
}

// The optional parts of the contract.
const (
	// CapTopology: connections implement [Topology].
	CapTopology = "topology"
	// CapFilters: a Source's Address may be a filter.
	CapFilters = "filters"
)

// OptionTake is the name of an attribute that a Source schema may have, a Bool: what is acknowledged shall be gone from its
// place, and not only be done with for this subscription. Whoever empties a place sets it where there is one.
const OptionTake = "take"

// Schema describes an object of configuration: what `hcldec` needs to decode a block's body, and what a person needs to
// write it. It is data, so that a plugin in any language can send it.
type Schema struct {
	Attributes []Attribute
	Blocks     []Block
}

// Attribute is one name = value. A value that is not given and has no Default is left out of the JSON object.
type Attribute struct {
	Name string
	Type Type
	// Required: it has to be given.
	Required bool
	// Secret: its value is never printed.
	Secret bool
	// Default is for people: the driver applies it by itself.
	Default string
	// OneOf lists the values that are allowed, where they are few. Type String only.
	OneOf []string
	// Doc is one or two sentences.
	Doc string
}

// Block is a nested block that may be given once at most; in JSON it is an object under its name.
type Block struct {
	Name   string
	Doc    string
	Schema Schema
}

// Type is the type of an attribute.
type Type string

// The types of attributes, with what they become in JSON.
const (
	String     Type = "string"       // a string
	Number     Type = "number"       // a number
	Bool       Type = "bool"         // true or false
	Duration   Type = "duration"     // a string that time.ParseDuration takes: "1m30s"
	StringList Type = "list(string)" // an array of strings
	StringMap  Type = "map(string)"  // an object of strings
)

// ValidateRequest is what a driver shall check without I/O. Config may be nil: then only the endpoints are checked.
type ValidateRequest struct {
	Config  json.RawMessage
	Sources []Source
	Sinks   []Sink
}

// ValidateResult is what a driver says of a ValidateRequest.
type ValidateResult struct {
	// Problems is empty when nothing is wrong.
	Problems []Problem
	// Sources and Sinks have as many elements as the request.
	Sources, Sinks []Traits
}

// Problem is something wrong in a ValidateRequest.
type Problem struct {
	// Where says which part is wrong.
	Where Part
	// Index of the source or the sink, 0 for the config.
	Index int
	// Path leads to the attribute in the part: block names and the attribute's name. Empty: the part as a whole. The
	// address of an endpoint is "address".
	Path []string
	// Message says what is wrong and what to do, in one or two sentences, without the values of secrets.
	Message string
}

// Part is a part of a ValidateRequest.
type Part uint8

// The parts.
const (
	InConfig Part = iota + 1
	InSource
	InSink
)

// Traits are what an endpoint can promise. The guarantee of an edge is computed from those of its two ends.
type Traits struct {
	// Acks: a source holds a message until it is acknowledged, over the loss of the connection and of this program.
	Acks bool
	// Confirms: a sink's broker says when it has a message.
	Confirms bool
	// Deduplicates: a sink's broker drops a message whose id it has seen within its window.
	Deduplicates bool
	// Identifies: a source gives every message a SourceID, the same at every redelivery: what a sink that deduplicates needs.
	Identifies bool
	// Place names the place on the broker in a form in which equal means the same: "queue:orders", "topic:a/b". A feed's
	// source and sink with the same place on the same broker are one place: there is nothing to carry.
	Place string
	// Subscription tells apart sources at one Place for which the broker keeps different things, such as queues with different
	// routing keys. Empty where the Place says it all.
	Subscription string
	// Headerless: messages have no headers here, so that whoever has more to say than a body has to put it there.
	Headerless bool
	// Fleeting: a sink's place keeps nothing by itself. What comes is kept for those subscriptions whose broker keeps
	// something for them, and for nobody else.
	Fleeting bool
	// Weakness says in words why Acks or Confirms is false, and what to do: "QoS 0 has no acknowledgement: set qos = 1".
	Weakness string
	// Kind says as what kind of place the broker itself can bind the endpoint, by [Topology], with the same meaning as carrying
	// from it or to it. 0 where it cannot.
	Kind PlaceKind
}
