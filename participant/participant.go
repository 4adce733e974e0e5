// Package participant is for writing MsgFlo participants in Go: programs with ports on a message broker, which announce
// themselves and are joined into graphs by flogate, or by msgflo. The broker may be an MQTT, AMQP 0-9-1 or NATS one; its
// URL decides.
//
//	p := participant.New(participant.Definition{
//		Role:      "motor",
//		Component: "demo/Motor",
//		Inports:   []participant.Port{{ID: "start", Type: "boolean"}},
//		Outports:  []participant.Port{{ID: "running", Type: "boolean"}},
//	}, participant.Config{Log: log})
//	p.Handle("start", participant.JSON(func(ctx context.Context, on bool) error {
//		return p.SendJSON(ctx, "running", on)
//	}))
//	err := p.Run(ctx, "mqtt://127.0.0.1")
//
// A message is acknowledged after its handler has returned nil, and [Participant.Send] returns nil after the broker's own
// confirm. So nothing that a handler passes on is lost, whoever dies, where the broker keeps messages: it may come twice.
// What each transport and each of its options promises stands in docs/transports; docs/participants.md has the rest.
//
// The package is not for gateways: who carries other people's messages uses core/bridge.
package participant

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/transport"
)

// Definition is what a participant is. Nobody changes it once it was given to New.
type Definition struct {
	// Role is the name of the node in graphs. Mandatory.
	Role string
	// Component is what the participant is an instance of: "Name" or "library/Name". Mandatory.
	Component string
	// Label and Icon are for people; Icon is a name of Font Awesome's.
	Label, Icon string
	// Inports and Outports have ids that differ within each of the two.
	Inports, Outports []Port
}

// Port is an inport or an outport.
type Port struct {
	// ID is the port's name in graphs. Mandatory.
	ID string
	// Type is one of MsgFlo's words: boolean, string, int, number, object, array, buffer, error, all. Empty means any.
	Type string
	// Address is the topic (MQTT), queue or exchange (AMQP) or subject (NATS). The default is MsgFlo's: "<role>.<ID>", the
	// id in capitals.
	Address string
	// Description is for people, Schema is the URL of a JSON schema of the messages.
	Description, Schema string

	// Options are the transport's options for the port, by transport: "mqtt", "amqp", "nats". Those of an inport are what
	// docs/transports calls a source, those of an outport a sink; only those of the transport in use are looked at.
	Options map[string]Options

	// Concurrency is how many messages of an inport are handled at a time. The default is 1, which keeps their order.
	Concurrency int
	// Prefetch is how many messages of an inport the broker hands out before they are settled, where the transport has
	// such a limit. The default is twice the concurrency, so that few wait here while another worker would be free. More
	// is faster where handlers take less time than the way to the broker.
	Prefetch int
}

// Options are a transport's own options, as they stand in its documentation.
type Options map[string]any

// Config is how a participant runs. All of it has defaults.
type Config struct {
	// Instance tells participants of one role apart that run at the same time. What the broker keeps for a participant
	// while it is away (MQTT's sessions, JetStream's consumers) belongs to role and instance: it has to be the same in
	// the next life, and two that are the same throw each other out. On AMQP workers of one role share the queue, and
	// need none.
	Instance string
	// Period is how often at least the participant promises to be heard of; it announces itself every Period/2.2. The
	// default is the number of seconds in MSGFLO_DISCOVERY_PERIOD, or else 60 s.
	Period time.Duration
	// Discovery is the address for announcements. The default is "fbp".
	Discovery string
	// Drain is how long handlers may go on, and send, after the context of Run has ended. The default is 5 s; a negative
	// one is not at all.
	Drain time.Duration
	// Settings are those of the broker beside the URL, as they stand in the transport's documentation.
	Settings Options
	// Driver is for another transport than those of this package: whatever the URL's scheme is, it is used.
	Driver transport.Driver
	// Ready, if not nil, is called once, when all ports are open for the first time: just before the participant is
	// announced. It must not block.
	Ready func()
	Log   *slog.Logger
}

// Handler does what has to be done for a message. A message whose handler returns nil is acknowledged. One with an error
// is released, and comes again after a while: see Participant.Handle. One with an error made by Reject never does. A
// handler that panics has returned an error.
//
// ctx ends when the participant has to go, some time after that of Run: see Config.Drain. The message belongs to the handler.
type Handler func(ctx context.Context, msg Message) error

// Message is what brokers carry; most need the Body only.
type Message = transport.Message

// Participant has ports on a broker. Send and SendJSON may be called concurrently, at any time.
type Participant struct {
	def      Definition
	cfg      Config
	id       string
	outports map[string]*outport

	mu       sync.Mutex
	handlers map[string]Handler
	running  bool
	mistake  error // the first one in a call of Handle
}

// New returns a participant that does nothing until Run is called. What is wrong with the definition Run says.
func New(def Definition, cfg Config) *Participant {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Discovery == "" {
		cfg.Discovery = "fbp"
	}
	if cfg.Drain == 0 {
		cfg.Drain = 5 * time.Second
	}
	if cfg.Ready == nil {
		cfg.Ready = func() {}
	}
	p := &Participant{
		def:      def,
		cfg:      cfg,
		id:       def.Role + "-" + strings.ToLower(rand.Text()),
		outports: make(map[string]*outport),
		handlers: make(map[string]Handler),
	}
	for _, port := range def.Outports {
		p.outports[port.ID] = newOutport(port.ID, p.id+" "+port.ID, cfg.Log)
	}
	return p
}

// Handle says what is done with the messages of an inport. Each inport has one handler; it is called before Run.
//
// After an error of the only handler at a time, what was taken in advance is given back together with the message, the
// inport rests for 10 ms to 5 s, longer with each error in a row, and goes on with the message: in order, as far as the
// broker keeps it. With a Concurrency of more than one the message is given back alone, by then, and others go on. What a
// broker does not keep (NATS core subjects, MQTT's QoS 0) does not come again.
func (p *Participant) Handle(inport string, h Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	mistake := func(format string, args ...any) {
		if p.mistake == nil {
			p.mistake = transport.Permanentf(format, args...)
		}
	}
	switch {
	case p.running:
		mistake("inport %q: handlers are set before Run", inport)
	case !hasPort(p.def.Inports, inport):
		mistake("there is no inport %q", inport)
	case h == nil || p.handlers[inport] != nil:
		mistake("inport %q has one handler", inport)
	default:
		p.handlers[inport] = h
	}
}

func hasPort(ports []Port, id string) bool {
	for _, port := range ports {
		if port.ID == id {
			return true
		}
	}
	return false
}

// Run connects the participant to the broker, serves its ports and announces it, until ctx ends; then it takes no more
// messages, waits for the handlers that run, and returns nil. A broker that is away is waited for, and one that was lost is
// connected again. With an empty brokerURL it is that of MSGFLO_BROKER. It is called once.
//
// An error means that trying again is of no use: the definition, the URL or an option is wrong, or an inport has no handler.
// It comes at once. Wrong credentials are no such error: they are logged, and tried again every 5 s.
func (p *Participant) Run(ctx context.Context, brokerURL string) error {
	defer func() {
		for _, o := range p.outports {
			o.stop()
		}
	}()
	if err := p.begin(); err != nil {
		return fmt.Errorf("participant %q: %w", p.def.Role, err)
	}
	site, announcement, err := p.plan(ctx, brokerURL)
	if err != nil {
		return fmt.Errorf("participant %q: %w", p.def.Role, err)
	}

	// The connection outlives ctx: handlers have to be heard out.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var connection sync.WaitGroup
	defer connection.Wait()
	defer stop() // before the wait
	b := broker.New(broker.Config{
		Name:    site.name,
		Request: site.request,
		Driver:  func(context.Context) (transport.Driver, error) { return site.driver, nil },
		Log:     p.cfg.Log,
	})
	connection.Go(func() { _ = b.Run(work) }) // nil, always

	var open []<-chan struct{}
	for id, sink := range site.sinks {
		o := p.outports[id]
		open = append(open, o.opened.done())
		connection.Go(func() { o.run(work, b.Conn, sink) })
	}
	var serving sync.WaitGroup
	for _, in := range site.inports {
		open = append(open, in.opened.done())
		serving.Go(func() { in.run(ctx, work, b.Conn) })
	}
	serving.Go(func() {
		// Who is announced gets its initial packets at once, and they are sent only once: nobody must miss them.
		for _, o := range open {
			select {
			case <-o:
			case <-ctx.Done():
				return
			}
		}
		p.cfg.Ready()
		announcement.run(ctx, b.Conn)
	})

	<-ctx.Done()
	drain := time.AfterFunc(max(p.cfg.Drain, 0), stop)
	defer drain.Stop()
	serving.Wait()
	return nil
}

// begin is where everything that New and Handle were given has to be right.
func (p *Participant) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running {
		return transport.Permanentf("is run once")
	}
	p.running = true
	errs := []error{p.mistake}
	for _, port := range p.def.Inports {
		if p.handlers[port.ID] == nil {
			errs = append(errs, fmt.Errorf("inport %q has no handler", port.ID))
		}
		if port.Concurrency < 0 || port.Prefetch < 0 {
			errs = append(errs, fmt.Errorf("inport %q: a number is negative", port.ID))
		}
	}
	for _, port := range p.def.Outports {
		if port.Concurrency != 0 || port.Prefetch != 0 {
			errs = append(errs, fmt.Errorf("outport %q: concurrency and prefetch are for inports", port.ID))
		}
	}
	return transport.Permanent(errors.Join(errs...))
}

// plan finds the driver, and checks everything with it that can be checked without a broker.
func (p *Participant) plan(ctx context.Context, brokerURL string) (*site, announcer, error) {
	none := announcer{}
	period, err := p.period()
	if err != nil {
		return nil, none, transport.Permanent(err)
	}
	a := announcer{address: p.cfg.Discovery, log: p.cfg.Log, definition: p.announced(period)}
	if _, err := a.definition.Marshal(); err != nil {
		return nil, none, transport.Permanent(err)
	}
	if brokerURL == "" {
		brokerURL = os.Getenv("MSGFLO_BROKER")
	}
	site, err := p.find(ctx, brokerURL)
	if err != nil {
		return nil, none, err
	}
	a.transport = site.transport
	return site, a, nil
}

func (p *Participant) period() (time.Duration, error) {
	if p.cfg.Period != 0 {
		return p.cfg.Period, nil
	}
	text := os.Getenv("MSGFLO_DISCOVERY_PERIOD")
	if text == "" {
		return discovery.DefaultPeriod, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if limit := discovery.MaxHeartbeat.Seconds(); err != nil || !(seconds > 0 && seconds <= limit) {
		return 0, fmt.Errorf("MSGFLO_DISCOVERY_PERIOD is %q: it is a number of seconds, up to %.0f", text, limit)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// announced is the definition as the world gets to see it.
func (p *Participant) announced(period time.Duration) discovery.Definition {
	ports := func(own []Port) []discovery.Port {
		var list []discovery.Port
		for _, port := range own {
			announced := discovery.Port{
				ID: port.ID, Type: port.Type, Queue: p.address(port), Description: port.Description, Schema: port.Schema,
			}
			if announced.Type == "" {
				announced.Type = discovery.AnyType
			}
			list = append(list, announced)
		}
		return list
	}
	return discovery.Definition{
		ID: p.id, Role: p.def.Role, Component: p.def.Component, Label: p.def.Label, Icon: p.def.Icon,
		Inports: ports(p.def.Inports), Outports: ports(p.def.Outports), Heartbeat: period,
	}
}

func (p *Participant) address(port Port) string {
	if port.Address != "" {
		return port.Address
	}
	return p.def.Role + "." + strings.ToUpper(port.ID)
}

// Send sends a message from an outport. It blocks until the broker has confirmed it, over as many connections as that
// takes, and then returns nil. Messages that are sent one after the other stand in that order at the broker. The message's
// Body may be used again after.
//
// The error is Permanent if the broker refuses the message for good or there is no such outport, ErrClosed if Run has
// returned, else that of ctx: the message may then have been sent all the same, if it was on its way.
func (p *Participant) Send(ctx context.Context, outport string, msg Message) error {
	o := p.outports[outport]
	if o == nil {
		return transport.Permanentf("participant %q has no outport %q", p.def.Role, outport)
	}
	if err := o.send(ctx, msg); err != nil {
		return fmt.Errorf("participant %q: outport %q: %w", p.def.Role, outport, err)
	}
	return nil
}

// redacted returns a URL as it may be shown.
func redacted(brokerURL string) string {
	u, err := url.Parse(brokerURL)
	if err != nil {
		return "a URL that cannot be read" // it may have a password in it
	}
	return u.Redacted()
}
