package config

import (
	"encoding/json"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/flogate/flogate/core/transport"
)

// letterOptions is the block of an edge with what the driver shall know of its dead letter.
const letterOptions = "dead_letter_options"

func edgeSchema() *hcl.BodySchema {
	s := attributes("require", "dead_letter", "dead_letter_broker", "window", "routing")
	s.Blocks = []hcl.BlockHeaderSchema{{Type: letterOptions}}
	return s
}

// decodeDeadLetter decodes what an edge says of its dead letter. The participants have been decoded: without a broker of its
// own it is on that of the sink.
func (l *loader) decodeDeadLetter(content *hcl.BodyContent, v values, e *edgeAt) {
	var ok bool
	if e.DeadLetter.Address, e.deadLetter, ok = v.text("dead_letter"); ok && e.DeadLetter.Address == "" {
		l.diags.add(Error, e.deadLetter, "Wrong value", `"dead_letter" is an address on the broker: a topic, a queue, a subject.`)
	}
	e.letterPlace = newPlace(e.deadLetter)
	e.letterPlace.values["address"] = e.deadLetter
	e.deadLetterBroker, _ = v.broker("dead_letter_broker")
	options := content.Blocks.OfType(letterOptions)
	l.onlyOne(options)
	if v.attrs["dead_letter"] == nil {
		if attr := v.attrs["dead_letter_broker"]; attr != nil {
			l.diags.add(Error, attr.NameRange, "Dead letters without an address", `"dead_letter_broker" says on which broker "dead_letter" is, and there is none.`)
		}
		for _, b := range options {
			l.diags.add(Error, b.TypeRange, "Dead letters without an address", `"dead_letter_options" are for the address "dead_letter", and there is none.`)
		}
		return
	}
	if v.attrs["dead_letter_broker"] == nil {
		if sink := l.participant(e.To); sink != nil {
			e.deadLetterBroker = sink.broker
		} else if len(l.brokerOrder) == 1 {
			e.deadLetterBroker = l.brokerOrder[0]
		} else if e.valid && e.DeadLetter.Address != "" {
			l.diags.add(Error, v.attrs["dead_letter"].NameRange, "Dead letters without a broker",
				`The sink %q is not in the file, and there is more than one broker: say where its dead letters go, as in dead_letter_broker = broker.mqtt.house.`, e.To)
		}
	}
	if e.deadLetterBroker == nil {
		return
	}
	e.DeadLetter.Broker = e.deadLetterBroker.ID()
	driver := e.deadLetterBroker.driver
	if driver == nil {
		return // nobody knows what options there are
	}
	var object map[string]json.RawMessage
	if len(options) > 0 {
		e.letterPlace.whole = options[0].DefRange
		before := l.diags.Count(Error)
		theirs, diags := options[0].Body.Content(bodySchema(driver.description.Sink))
		l.diags.addHCL(diags)
		object = l.decodeObject(driver.description.Sink, theirs, e.letterPlace)
		if object == nil || l.diags.Count(Error) > before {
			e.lettersWrong = true
			return
		}
		e.DeadLetterOptions = NewSecret(string(encodeObject(object)))
	}
	if reader := readerOptions(driver.description.Source, object); len(reader) > 0 {
		e.DeadLetterReader = NewSecret(string(encodeObject(reader)))
	}
}

// readerOptions are the options of the sink that a source has too: whoever reads dead letters finds them with these where
// the gateway has put them, in the same stream or at the same exchange.
func readerOptions(source transport.Schema, sink map[string]json.RawMessage) map[string]json.RawMessage {
	reader := make(map[string]json.RawMessage)
	for name, value := range sink {
		if slices.ContainsFunc(source.Attributes, func(a transport.Attribute) bool { return a.Name == name }) ||
			slices.ContainsFunc(source.Blocks, func(b transport.Block) bool { return b.Name == name }) {
			reader[name] = value
		}
	}
	if slices.ContainsFunc(source.Attributes, func(a transport.Attribute) bool {
		return a.Name == transport.OptionTake && a.Type == transport.Bool
	}) {
		reader[transport.OptionTake] = json.RawMessage("true")
	}
	return reader
}
