// Package transporttest says whether a transport.Driver keeps the contract of core/transport, and stands in for brokers in
// the tests of what is built on drivers.
//
//   - [Run] is the conformance suite: a driver's test describes its broker as a [Target] and passes it in. Each case is a
//     sentence of the contract.
//   - [Memory] is a broker in memory with a driver that passes the suite.
//   - [Faults] wraps a driver and makes go wrong what a test wants to go wrong.
//   - [Proxy] stands between a driver and a real broker, and cuts or freezes what passes.
//
// The test of a driver looks like this, once for each kind of endpoint that makes different promises:
//
//	func TestQoS1KeepsTheContract(t *testing.T) {
//		broker := startMosquitto(t)
//		proxy := transporttest.NewProxy(t, broker.addr)
//		transporttest.Run(t, transporttest.Target{
//			New:    func(testing.TB) transport.Driver { return mqtt.New() },
//			Config: func(testing.TB) json.RawMessage { return json.RawMessage(`{"url":"mqtt://` + proxy.Addr() + `"}`) },
//			Pair: func(testing.TB) (transport.Source, transport.Sink) {
//				topic := "conformance/" + rand.Text()
//				return transport.Source{Address: topic}, transport.Sink{Address: topic}
//			},
//			Has:       transporttest.Capabilities{Acks: true, Confirms: true, Durable: true},
//			Carries:   transporttest.FieldDurable,
//			Cut:       proxy.Cut,
//			Blackhole: proxy.Blackhole,
//			Restart:   broker.restart,
//			Lacks:     map[string]string{"Block": "MQTT has no such word", "TooLarge": "…"},
//		})
//	}
//
// What is nil has to be excused in Lacks: a case that does not run says why, and none is left out in silence.
package transporttest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// Target is a driver to be examined, with a broker that it can reach. The functions are called from the case's goroutine,
// with a testing.TB that belongs to the case: its Cleanup runs when the case is over, after every connection of the case has
// been closed. They may fail the case, but not skip it.
type Target struct {
	// New returns the driver. It is called once in each case; it may return the same driver each time.
	New func(t testing.TB) transport.Driver

	// Config returns the configuration with which to connect. It is called for each connection.
	Config func(t testing.TB) json.RawMessage

	// Pair returns a place that nobody has used before, as a source and a sink: what is published to the sink after the
	// subscription arrives at the source. The suite sets the Window, and the Name where it is empty.
	Pair func(t testing.TB) (transport.Source, transport.Sink)

	// Has says what source and sink of a Pair promise. It has to agree with the driver's own Traits.
	Has Capabilities

	// Carries says which fields of a message survive the way from the sink to the source.
	Carries Field

	// MaxBody is the largest body that the suite passes, in bytes. 0 means 16 MiB, which is what the contract asks for
	// unless the broker's own maximum is smaller.
	MaxBody int

	// TooLarge is the size of a body that the broker or the driver refuses, in bytes.
	TooLarge int

	// Cut ends all connections between the driver and the broker at once, as the loss of a network does.
	Cut func(t testing.TB)

	// Blackhole makes the network swallow everything in both directions without ending a connection, until restore is
	// called. What was swallowed stays lost: connections from before do not come to life again.
	Blackhole func(t testing.TB) (restore func())

	// Restart kills the broker and starts it again with its durable state. It returns when the broker can be reached.
	Restart func(t testing.TB)

	// Block makes the broker tell the connections that are open to stop publishing, until unblock is called.
	Block func(t testing.TB) (unblock func())

	// Refused returns a fresh source, a sink, a message that arrives at the source when it is published to the sink, and
	// one that the broker or the driver refuses for good.
	Refused func(t testing.TB) (src transport.Source, sink transport.Sink, good, bad transport.Message)

	// Filtered returns a source whose address is a filter, a sink without an address, addresses that the filter matches,
	// and others that it does not match. Wanted where the driver has CapFilters.
	Filtered func(t testing.TB) (src transport.Source, sink transport.Sink, match, other []string)

	// Odd returns fresh pairs with addresses as odd as the broker allows: spaces, umlauts, very long.
	Odd func(t testing.TB) []Pair

	// Place returns a place of the given kind that does not exist on the broker, with a source and a sink on it. The source
	// is wanted for queues only. Wanted where the driver has CapTopology.
	Place func(t testing.TB, kind transport.PlaceKind) (transport.Place, transport.Source, transport.Sink)

	// Quiet is how long to wait to see that something does not happen; 0 means 300 ms. A driver that is too slow to break a
	// rule within it passes; none fails because of it.
	Quiet time.Duration

	// Lacks gives, under the name of each field above that is nil or 0 (from TooLarge on), the reason for it in words.
	Lacks map[string]string

	// Foreign reports whether a goroutine with this stack, which a case has left over, belongs to something other than
	// the driver: a broker in this process. May be nil.
	Foreign func(stack string) bool
}

// Pair is a source and a sink: what is published to the one after the subscription arrives at the other.
type Pair struct {
	Source transport.Source
	Sink   transport.Sink
}

// Capabilities are promises that not every broker can make.
type Capabilities struct {
	// Acks, Confirms and Deduplicates as in [transport.Traits]. A sink that does not confirm reports messages as confirmed
	// when it has sent them.
	Acks, Confirms, Deduplicates bool

	// Durable: what is published while the subscription is closed comes with the next Subscribe of the same Name.
	Durable bool

	// ReleaseAtOnce: a released delivery comes again on the same subscription. Otherwise it comes with the next Subscribe
	// of the same Name, at the latest on the next connection.
	ReleaseAtOnce bool

	// RemoveForgets: what is published after Remove does not come to a later subscription, because what held it is gone. Not
	// so with a queue that somebody else has made.
	RemoveForgets bool

	// Retains: the broker keeps the last message with Retain for subscriptions to come.
	Retains bool
}

// Field is a set of the fields of [transport.Message].
type Field uint32

// The fields. Body is always carried, Address always set.
const (
	FieldContentType Field = 1 << iota
	FieldContentEncoding
	FieldID
	FieldCorrelationID
	FieldCorrelationBinary // any bytes in CorrelationID, not only UTF-8
	FieldReplyTo
	FieldCreated // to the second
	FieldTTL     // to the second
	FieldPriority
	FieldDurable
	FieldHeaders       // names with one text value each
	FieldHeaderBinary  // Binary values of any bytes
	FieldHeaderRepeats // a name with several values, in their order
	FieldHeaderOrder   // the order of different names
	FieldHeaderAnyText // line ends, spaces at the edges, and empty values
	FieldRedelivered   // set by the broker at a redelivery
	FieldAttempt       // counted by the broker
	FieldSourceID      // given by the broker, the same at a redelivery
	fieldEnd
	// AllFields is every field.
	AllFields = fieldEnd - 1
)

// caseLimit bounds one case. It is for the slowest broker on a loaded machine; a case takes well under a second otherwise.
const caseLimit = 30 * time.Second

// restartLimit is what the restart of a broker may add: RabbitMQ needs 10 s alone, and a minute beside other tests.
const restartLimit = 2 * time.Minute

// Run examines a driver. No case has more than 20 deliveries unsettled at a time or more than 800 messages queued, so that brokers pass with the configuration they come with.
//
// Each case is a subtest. Cases do not run in parallel, and no other test may run beside them, because
// they look for goroutines that are left over.
func Run(t *testing.T, target Target) {
	t.Helper()
	if err := target.check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			if why := c.without(target); why != "" {
				t.Skip("does not apply: " + why)
			}
			limit := caseLimit
			if slices.Contains(c.needs, "Restart") {
				limit += restartLimit
			}
			c.report(t, c.examine(t, target, limit))
		})
	}
}

// check returns an error for a Target that leaves something out and does not say why.
func (g Target) check() error {
	if g.New == nil || g.Config == nil || g.Pair == nil {
		return fmt.Errorf("a Target needs New, Config and Pair")
	}
	var wrong []string
	v := reflect.ValueOf(g)
	for _, name := range excusable() {
		reason, excused := g.Lacks[name]
		switch missing := v.FieldByName(name).IsZero(); {
		case missing && reason == "":
			wrong = append(wrong, name+" is missing and Lacks does not say why")
		case !missing && excused:
			wrong = append(wrong, name+" is there and Lacks excuses it")
		}
	}
	for name := range g.Lacks {
		if !slices.Contains(excusable(), name) {
			wrong = append(wrong, "Lacks names "+name+", which there is not")
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("target: %s", strings.Join(wrong, "; "))
	}
	return nil
}

// excusable names the fields of a Target that may be missing with a reason.
func excusable() []string {
	return []string{"TooLarge", "Cut", "Blackhole", "Restart", "Block", "Refused", "Filtered", "Odd", "Place"}
}

func (g Target) maxBody() int {
	if g.MaxBody == 0 {
		return 16 << 20
	}
	return g.MaxBody
}
