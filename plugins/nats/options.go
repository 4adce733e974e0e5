package nats

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/flogate/flogate/core/transport"
)

// sourceOptions are the options of a port that messages come from.
type sourceOptions struct {
	Queue         string         `json:"queue"`
	Stream        string         `json:"stream"`
	Consumer      string         `json:"consumer"`
	Deliver       string         `json:"deliver"`
	StartSequence uint64         `json:"start_sequence"`
	StartTime     string         `json:"start_time"`
	AckWait       duration       `json:"ack_wait"`
	DoubleAck     bool           `json:"double_ack"`
	Shared        bool           `json:"shared"`
	Take          bool           `json:"take"`
	CreateStream  *streamOptions `json:"create_stream"`
}

// sinkOptions are the options of a port that messages go to.
type sinkOptions struct {
	Stream       string         `json:"stream"`
	Dedup        string         `json:"dedup"`
	Window       int            `json:"window"`
	AckTimeout   duration       `json:"ack_timeout"`
	CreateStream *streamOptions `json:"create_stream"`
}

// streamOptions say what a stream is made like when there is none. An existing stream is never changed.
type streamOptions struct {
	Subjects    []string `json:"subjects"`
	Retention   string   `json:"retention"`
	Storage     string   `json:"storage"`
	Discard     string   `json:"discard"`
	MaxAge      duration `json:"max_age"`
	MaxBytes    int64    `json:"max_bytes"`
	MaxMessages int64    `json:"max_messages"`
	Duplicates  duration `json:"duplicates"`
	Replicas    int      `json:"replicas"`
}

const (
	deliverAll            = "all"
	deliverNew            = "new"
	deliverLast           = "last"
	deliverLastPerSubject = "last_per_subject"

	dedupSource = "source"
	dedupID     = "id"
	dedupOff    = "off"

	defaultAckWait    = 30 * time.Second
	defaultAckTimeout = 10 * time.Second
	defaultWindow     = 512
)

func sourceSchema() transport.Schema {
	return transport.Schema{
		Attributes: []transport.Attribute{
			{Name: "stream", Type: transport.String, Doc: "Consume from this JetStream stream, filtered by the address. Without it the source is a core subject, at most once."},
			{Name: "queue", Type: transport.String, Doc: "Queue group of a core subject: its members share the messages."},
			{Name: "consumer", Type: transport.String, Doc: "Name of the durable consumer, instead of one made from the names of the site, the broker and the port. One that exists and was not made here is used as it is."},
			{Name: "deliver", Type: transport.String, Default: deliverAll, OneOf: []string{deliverAll, deliverNew, deliverLast, deliverLastPerSubject}, Doc: "Where a new consumer begins. A consumer that exists goes on where it was."},
			{Name: "start_sequence", Type: transport.Number, Doc: "Where a new consumer begins, as a sequence number of the stream."},
			{Name: "start_time", Type: transport.String, Doc: "Where a new consumer begins, as a time: 2026-01-31T00:00:00Z."},
			{Name: "ack_wait", Type: transport.Duration, Default: defaultAckWait.String(), Doc: "After how long of silence the stream delivers an unsettled message again. The driver reports progress three times as often."},
			{Name: "double_ack", Type: transport.Bool, Default: "false", Doc: "Wait for the server's word on acknowledgements. Slower; a lost acknowledgement only leads to a duplicate."},
			{Name: "shared", Type: transport.Bool, Default: "false", Doc: "Several clients share the consumer. Order then holds no longer, and what a dead one had comes after ack_wait."},
			{Name: transport.OptionTake, Type: transport.Bool, Default: "false", Doc: "Delete from the stream what is acknowledged, whatever the stream's retention, and whoever else wants it."},
		},
		Blocks: []transport.Block{createStreamBlock()},
	}
}

func sinkSchema() transport.Schema {
	return transport.Schema{
		Attributes: []transport.Attribute{
			{Name: "stream", Type: transport.String, Doc: "Publish to this JetStream stream and wait for its word. Without it the sink is a core subject, at most once."},
			{Name: "dedup", Type: transport.String, Default: dedupSource, OneOf: []string{dedupSource, dedupID, dedupOff}, Doc: "What the stream tells duplicates by: the message's place at its source; the publisher's own message id, which has to be unique in the stream; or nothing."},
			{Name: "window", Type: transport.Number, Default: fmt.Sprint(defaultWindow), Doc: "How many messages may be unconfirmed."},
			{Name: "ack_timeout", Type: transport.Duration, Default: defaultAckTimeout.String(), Doc: "How long the stream may confirm nothing before everything unconfirmed is sent again."},
		},
		Blocks: []transport.Block{createStreamBlock()},
	}
}

func createStreamBlock() transport.Block {
	return transport.Block{
		Name: "create_stream",
		Doc:  "Makes the stream when there is none. An existing stream is never changed.",
		Schema: transport.Schema{Attributes: []transport.Attribute{
			{Name: "subjects", Type: transport.StringList, Doc: "What the stream captures; the port's address when not given."},
			{Name: "retention", Type: transport.String, Default: "limits", OneOf: []string{"limits", "workqueue", "interest"}, Doc: "When a message goes: at the limits, when one consumer has acknowledged it, or when all have."},
			{Name: "storage", Type: transport.String, Default: "file", OneOf: []string{"file", "memory"}, Doc: "Where the server keeps the stream."},
			{Name: "discard", Type: transport.String, Default: "old", OneOf: []string{"old", "new"}, Doc: "What a full stream does: drop its oldest message, or take no new one (then the edge waits)."},
			{Name: "max_age", Type: transport.Duration, Doc: "How long a message is kept. Not given: for ever."},
			{Name: "max_bytes", Type: transport.Number, Doc: "How large the stream may grow. Not given: without limit."},
			{Name: "max_messages", Type: transport.Number, Doc: "How many messages are kept. Not given: without limit."},
			{Name: "duplicates", Type: transport.Duration, Default: "2m", Doc: "How long message ids are remembered: longer than the longest outage of the gateway."},
			{Name: "replicas", Type: transport.Number, Default: "1", Doc: "On how many servers of a cluster the stream is kept."},
		}},
	}
}

func parseSource(src transport.Source) (sourceOptions, []transport.Problem) {
	var o sourceOptions
	p := problems{}
	p.check(checkSubject(src.Address, true), "address")
	if !p.decode(src.Options, &o) {
		return o, p.list
	}
	if o.Queue != "" && (o.Stream != "" || strings.ContainsFunc(o.Queue, func(r rune) bool { return r <= ' ' })) {
		p.add("queue is for core subjects, and has no spaces: a stream is shared with shared = true", "queue")
	}
	if o.Stream == "" {
		for name, given := range map[string]bool{
			"consumer": o.Consumer != "", "deliver": o.Deliver != "", "start_sequence": o.StartSequence != 0, "start_time": o.StartTime != "",
			"ack_wait": o.AckWait != 0, "double_ack": o.DoubleAck, "shared": o.Shared, "create_stream": o.CreateStream != nil,
		} {
			if given {
				p.add(name+" needs stream", name)
			}
		}
		slices.SortFunc(p.list, func(a, b transport.Problem) int { return strings.Compare(a.Message, b.Message) })
		return o, p.list
	}
	p.check(checkName("stream", o.Stream), "stream")
	if o.Consumer != "" {
		p.check(checkName("consumer", o.Consumer), "consumer")
	}
	p.oneOf(o.Deliver, "deliver", deliverAll, deliverNew, deliverLast, deliverLastPerSubject)
	if o.StartTime != "" {
		if _, err := time.Parse(time.RFC3339Nano, o.StartTime); err != nil {
			p.add("start_time is not a time like 2026-01-31T00:00:00Z", "start_time")
		}
	}
	if n := count(o.Deliver != "", o.StartSequence != 0, o.StartTime != ""); n > 1 {
		p.add("give only one of deliver, start_sequence and start_time", "deliver")
	}
	if o.AckWait != 0 && time.Duration(o.AckWait) < time.Second {
		p.add("ack_wait must be at least 1s", "ack_wait")
	}
	p.stream(o.CreateStream, src.Address)
	return o, p.list
}

func parseSink(sink transport.Sink) (sinkOptions, []transport.Problem) {
	var o sinkOptions
	p := problems{}
	if sink.Address != "" {
		p.check(checkSubject(sink.Address, false), "address")
	}
	if !p.decode(sink.Options, &o) {
		return o, p.list
	}
	p.oneOf(o.Dedup, "dedup", dedupSource, dedupID, dedupOff)
	if o.Window < 0 || o.Window > 1<<16 {
		p.add("window must be between 1 and 65536", "window")
	}
	if o.AckTimeout < 0 {
		p.add("ack_timeout must be positive", "ack_timeout")
	}
	if o.Stream == "" {
		if o.CreateStream != nil {
			p.add("create_stream needs stream", "create_stream")
		}
		if o.Dedup != "" && o.Dedup != dedupOff {
			p.add("dedup needs stream", "dedup")
		}
		return o, p.list
	}
	p.check(checkName("stream", o.Stream), "stream")
	p.stream(o.CreateStream, sink.Address)
	return o, p.list
}

// problems collects what is wrong with one endpoint.
type problems struct {
	list []transport.Problem
}

func (p *problems) add(message string, path ...string) {
	p.list = append(p.list, transport.Problem{Path: path, Message: message})
}

func (p *problems) check(err error, path ...string) {
	if err != nil {
		p.add(err.Error(), path...)
	}
}

func (p *problems) decode(raw json.RawMessage, into any) bool {
	if len(raw) == 0 {
		return true
	}
	if err := json.Unmarshal(raw, into); err != nil {
		p.add(decodeProblem(err))
		return false
	}
	return true
}

func (p *problems) oneOf(value, name string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		p.add(fmt.Sprintf("%s must be one of %s", name, strings.Join(allowed, ", ")), name)
	}
}

func (p *problems) stream(s *streamOptions, address string) {
	if s == nil {
		return
	}
	const block = "create_stream"
	if len(s.Subjects) == 0 && address == "" {
		p.add("subjects are needed where the port has no address", block, "subjects")
	}
	for _, subject := range s.Subjects {
		p.check(checkSubject(subject, true), block, "subjects")
	}
	before := len(p.list)
	p.oneOf(s.Retention, "retention", "limits", "workqueue", "interest")
	p.oneOf(s.Storage, "storage", "file", "memory")
	p.oneOf(s.Discard, "discard", "old", "new")
	if s.MaxAge < 0 || s.MaxBytes < 0 || s.MaxMessages < 0 || s.Duplicates < 0 || s.Replicas < 0 {
		p.add("limits cannot be negative")
	}
	for i := range p.list[before:] {
		p.list[before+i].Path = append([]string{block}, p.list[before+i].Path...)
	}
}

func count(given ...bool) int {
	n := 0
	for _, g := range given {
		if g {
			n++
		}
	}
	return n
}

// first is the error of the first problem, for calls that check one endpoint.
func first(problems []transport.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return transport.Permanentf("%s", problems[0].Message)
}

// config is what the server is asked to make.
func (s *streamOptions) config(name, address string) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:       name,
		Subjects:   s.Subjects,
		MaxAge:     time.Duration(s.MaxAge),
		MaxBytes:   -1,
		MaxMsgs:    -1,
		Duplicates: time.Duration(s.Duplicates),
		Replicas:   max(1, s.Replicas),
		Storage:    jetstream.FileStorage,
		Retention:  jetstream.LimitsPolicy,
		Discard:    jetstream.DiscardOld,
	}
	if len(c.Subjects) == 0 {
		c.Subjects = []string{address}
	}
	if s.MaxBytes > 0 {
		c.MaxBytes = s.MaxBytes
	}
	if s.MaxMessages > 0 {
		c.MaxMsgs = s.MaxMessages
	}
	if s.Storage == "memory" {
		c.Storage = jetstream.MemoryStorage
	}
	switch s.Retention {
	case "workqueue":
		c.Retention = jetstream.WorkQueuePolicy
	case "interest":
		c.Retention = jetstream.InterestPolicy
	}
	if s.Discard == "new" {
		c.Discard = jetstream.DiscardNew
	}
	// The server allows no window longer than the age of messages.
	if c.MaxAge > 0 && c.MaxAge < 2*time.Minute && c.Duplicates == 0 {
		c.Duplicates = c.MaxAge
	}
	return c
}
