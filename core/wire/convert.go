package wire

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/flogate/flogate/core/transport"
	pb "github.com/flogate/flogate/proto/flogate/transport/v1"
)

// Functions named …ToProto and …FromProto are inverses of each other. What comes from the other side may be nil.

// metaSize estimates, from above, the size on the wire of everything of a message that is not its body.
func metaSize(m *transport.Message) int {
	// 3 bytes for U+FFFD in the place of each wrong one is the worst that valid can do.
	n := len(m.Address) + len(m.ContentType) + len(m.ContentEncoding) + len(m.ID) + len(m.ReplyTo) + len(m.SourceID)
	n = 3*n + len(m.CorrelationID) + 128
	for i := range m.Headers {
		n += 3*len(m.Headers[i].Name) + len(m.Headers[i].Value) + 16
	}
	return n
}

// tooLarge returns why a message cannot be sent, or nil.
func tooLarge(m *transport.Message) error {
	if len(m.Body) > MaxBody {
		return transport.Permanentf("a body of %d bytes is larger than the %d that pass", len(m.Body), MaxBody)
	}
	if n := metaSize(m); n > maxMeta {
		return transport.Permanentf("headers and properties of about %d bytes are larger than the %d that pass", n, maxMeta)
	}
	return nil
}

// cut leaves out of a delivery what is too large to be sent, and notes how large it was.
func cut(d *transport.Delivery) {
	m := &d.Message
	if len(m.Body) > MaxBody {
		d.TooLarge = int64(len(m.Body))
		m.Body = nil
	}
	if n := metaSize(m); n > maxMeta {
		d.TooLarge = max(d.TooLarge, int64(n))
		// Where it came from, for whoever looks for it.
		d.Message = transport.Message{Address: text(m.Address), SourceID: text(m.SourceID), Redelivered: m.Redelivered, Attempt: m.Attempt}
	}
}

func messageToProto(m *transport.Message, p *pb.Message) {
	p.Body = m.Body
	p.Address = valid(m.Address)
	p.ContentType = valid(m.ContentType)
	p.ContentEncoding = valid(m.ContentEncoding)
	p.Id = valid(m.ID)
	if m.CorrelationID != "" {
		p.CorrelationId = []byte(m.CorrelationID)
	}
	p.ReplyTo = valid(m.ReplyTo)
	if !m.Created.IsZero() {
		p.Created = timestamppb.New(m.Created)
	}
	if m.TTL > 0 {
		p.Ttl = durationpb.New(m.TTL)
	}
	p.Priority = uint32(m.Priority)
	p.Durable = m.Durable
	p.Retain = m.Retain
	if len(m.Headers) > 0 {
		headers := make([]pb.Header, len(m.Headers))
		p.Headers = make([]*pb.Header, len(m.Headers))
		for i := range m.Headers {
			h := &m.Headers[i]
			headers[i].Name, headers[i].Value, headers[i].Binary = valid(h.Name), []byte(h.Value), h.Binary
			p.Headers[i] = &headers[i]
		}
	}
	p.Redelivered = m.Redelivered
	p.Attempt = m.Attempt
	p.SourceId = valid(m.SourceID)
}

func messageFromProto(p *pb.Message, m *transport.Message) {
	m.Body = p.GetBody()
	m.Address = p.GetAddress()
	m.ContentType = p.GetContentType()
	m.ContentEncoding = p.GetContentEncoding()
	m.ID = p.GetId()
	m.CorrelationID = string(p.GetCorrelationId())
	m.ReplyTo = p.GetReplyTo()
	if c := p.GetCreated(); c.IsValid() {
		m.Created = c.AsTime()
	}
	if t := p.GetTtl(); t.IsValid() {
		m.TTL = max(0, t.AsDuration())
	}
	m.Priority = uint8(min(p.GetPriority(), math.MaxUint8))
	m.Durable = p.GetDurable()
	m.Retain = p.GetRetain()
	if hs := p.GetHeaders(); len(hs) > 0 {
		m.Headers = make([]transport.Header, len(hs))
		for i, h := range hs {
			m.Headers[i] = transport.Header{Name: h.GetName(), Value: string(h.GetValue()), Binary: h.GetBinary()}
		}
	}
	m.Redelivered = p.GetRedelivered()
	m.Attempt = p.GetAttempt()
	m.SourceID = p.GetSourceId()
}

// messagesToProto is messageToProto for a batch, with one allocation for all.
func messagesToProto(n int, at func(i int) *transport.Message) []*pb.Message {
	all := make([]pb.Message, n)
	ps := make([]*pb.Message, n)
	for i := range all {
		messageToProto(at(i), &all[i])
		ps[i] = &all[i]
	}
	return ps
}

func creditToProto(c transport.Credit) *pb.Credit {
	return &pb.Credit{Messages: c.Messages, Bytes: c.Bytes}
}

func creditFromProto(p *pb.Credit) transport.Credit {
	return transport.Credit{Messages: p.GetMessages(), Bytes: p.GetBytes()}
}

func sourceToProto(s transport.Source) *pb.Source {
	return &pb.Source{Name: valid(s.Name), Address: valid(s.Address), Window: creditToProto(s.Window), Options: s.Options}
}

func sourceFromProto(p *pb.Source) transport.Source {
	return transport.Source{
		Name: p.GetName(), Address: p.GetAddress(), Window: creditFromProto(p.GetWindow()), Options: rawJSON(p.GetOptions()),
	}
}

func sinkToProto(s transport.Sink) *pb.Sink {
	return &pb.Sink{Name: valid(s.Name), Address: valid(s.Address), Options: s.Options}
}

func sinkFromProto(p *pb.Sink) transport.Sink {
	return transport.Sink{Name: p.GetName(), Address: p.GetAddress(), Options: rawJSON(p.GetOptions())}
}

// rawJSON returns nil for what was nil on the other side: protobuf does not tell nil from empty.
func rawJSON(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

func settlementFromProto(p *pb.Settlement) transport.Settlement {
	s := transport.Settlement{First: p.GetFirst(), Last: p.GetLast()}
	switch p.GetOutcome() {
	case pb.Outcome_OUTCOME_ACK:
		s.Outcome = transport.Ack
	case pb.Outcome_OUTCOME_RELEASE:
		s.Outcome = transport.Release
	case pb.Outcome_OUTCOME_REJECT:
		s.Outcome = transport.Reject
	}
	return s
}

func outcomeToProto(o transport.Outcome) pb.Outcome {
	switch o {
	case transport.Ack:
		return pb.Outcome_OUTCOME_ACK
	case transport.Release:
		return pb.Outcome_OUTCOME_RELEASE
	case transport.Reject:
		return pb.Outcome_OUTCOME_REJECT
	}
	return pb.Outcome_OUTCOME_UNSPECIFIED
}

func connectedToProto(id string, i transport.ConnInfo, topology bool) *pb.Connected {
	return &pb.Connected{
		ConnectionId: id, Product: text(i.Product), MaxBody: i.MaxBody, Features: texts(i.Features), Warnings: texts(i.Warnings),
		Topology: topology,
	}
}

func connInfoFromProto(p *pb.Connected) transport.ConnInfo {
	return transport.ConnInfo{
		Product: text(p.GetProduct()), MaxBody: max(0, p.GetMaxBody()), Features: texts(p.GetFeatures()), Warnings: texts(p.GetWarnings()),
	}
}

func conditionToProto(c transport.Condition) *pb.Condition {
	return &pb.Condition{Blocked: c.Blocked, Reason: text(c.Reason)}
}

func conditionFromProto(p *pb.Condition) transport.Condition {
	return transport.Condition{Blocked: p.GetBlocked(), Reason: text(p.GetReason())}
}

// maxTexts bounds lists of texts for people.
const maxTexts = 100

func texts(in []string) []string {
	if len(in) == 0 {
		return nil
	}
	out := make([]string, 0, min(len(in), maxTexts))
	for _, s := range in[:cap(out)] {
		out = append(out, text(s))
	}
	return out
}

func placeToProto(p transport.Place) *pb.Place {
	return &pb.Place{Kind: placeKindToProto(p.Kind), Address: valid(p.Address), DeadLetter: valid(p.DeadLetter)}
}

func placeFromProto(p *pb.Place) transport.Place {
	return transport.Place{Kind: placeKindFromProto(p.GetKind()), Address: p.GetAddress(), DeadLetter: p.GetDeadLetter()}
}

func placeKindToProto(k transport.PlaceKind) pb.PlaceKind {
	switch k {
	case transport.Queue:
		return pb.PlaceKind_PLACE_KIND_QUEUE
	case transport.Fanout:
		return pb.PlaceKind_PLACE_KIND_FANOUT
	case transport.Direct:
		return pb.PlaceKind_PLACE_KIND_DIRECT
	case transport.Topic:
		return pb.PlaceKind_PLACE_KIND_TOPIC
	}
	return pb.PlaceKind_PLACE_KIND_UNSPECIFIED
}

func placeKindFromProto(k pb.PlaceKind) transport.PlaceKind {
	switch k {
	case pb.PlaceKind_PLACE_KIND_QUEUE:
		return transport.Queue
	case pb.PlaceKind_PLACE_KIND_FANOUT:
		return transport.Fanout
	case pb.PlaceKind_PLACE_KIND_DIRECT:
		return transport.Direct
	case pb.PlaceKind_PLACE_KIND_TOPIC:
		return transport.Topic
	}
	return 0
}

func bindingToProto(b transport.Binding) *pb.Binding {
	return &pb.Binding{From: placeToProto(b.From), To: placeToProto(b.To), Key: valid(b.Key)}
}

func bindingFromProto(p *pb.Binding) transport.Binding {
	return transport.Binding{From: placeFromProto(p.GetFrom()), To: placeFromProto(p.GetTo()), Key: p.GetKey()}
}

func descriptionToProto(d transport.Description) *pb.DescribeResponse {
	return &pb.DescribeResponse{
		Name: valid(d.Name), Version: text(d.Version), Summary: text(d.Summary), Schemes: texts(d.Schemes),
		Capabilities: texts(d.Capabilities), Config: schemaToProto(d.Config), Source: schemaToProto(d.Source),
		Sink: schemaToProto(d.Sink),
	}
}

func descriptionFromProto(p *pb.DescribeResponse) (transport.Description, error) {
	d := transport.Description{
		Name: text(p.GetName()), Version: text(p.GetVersion()), Summary: text(p.GetSummary()), Schemes: texts(p.GetSchemes()),
		Capabilities: texts(p.GetCapabilities()),
	}
	var errs [3]error
	d.Config, errs[0] = schemaFromProto(p.GetConfig(), 0)
	d.Source, errs[1] = schemaFromProto(p.GetSource(), 0)
	d.Sink, errs[2] = schemaFromProto(p.GetSink(), 0)
	return d, errors.Join(errs[:]...)
}

// A schema is small; these bounds keep one that is not from being walked by everything that walks schemas.
const (
	maxSchemaDepth  = 8
	maxSchemaFields = 1000
)

func schemaToProto(s transport.Schema) *pb.Schema {
	p := &pb.Schema{}
	for _, a := range s.Attributes {
		p.Attributes = append(p.Attributes, &pb.Attribute{
			Name: valid(a.Name), Type: valid(string(a.Type)), Required: a.Required, Secret: a.Secret, Default: valid(a.Default),
			OneOf: texts(a.OneOf), Doc: text(a.Doc),
		})
	}
	for _, b := range s.Blocks {
		p.Blocks = append(p.Blocks, &pb.Block{Name: valid(b.Name), Doc: text(b.Doc), Schema: schemaToProto(b.Schema)})
	}
	return p
}

func schemaFromProto(p *pb.Schema, depth int) (transport.Schema, error) {
	var s transport.Schema
	if depth > maxSchemaDepth {
		return s, transport.Permanentf("blocks are nested more than %d deep", maxSchemaDepth)
	}
	if n := len(p.GetAttributes()) + len(p.GetBlocks()); n > maxSchemaFields {
		return s, transport.Permanentf("%d attributes and blocks are more than the %d that are allowed", n, maxSchemaFields)
	}
	for _, a := range p.GetAttributes() {
		switch t := transport.Type(a.GetType()); t {
		case transport.String, transport.Number, transport.Bool, transport.Duration, transport.StringList, transport.StringMap:
		default:
			return s, transport.Permanentf("attribute %q has the unknown type %q", text(a.GetName()), text(string(t)))
		}
		s.Attributes = append(s.Attributes, transport.Attribute{
			Name: text(a.GetName()), Type: transport.Type(a.GetType()), Required: a.GetRequired(), Secret: a.GetSecret(),
			Default: text(a.GetDefault()), OneOf: texts(a.GetOneOf()), Doc: text(a.GetDoc()),
		})
	}
	for _, b := range p.GetBlocks() {
		nested, err := schemaFromProto(b.GetSchema(), depth+1)
		if err != nil {
			return s, fmt.Errorf("block %q: %w", text(b.GetName()), err)
		}
		s.Blocks = append(s.Blocks, transport.Block{Name: text(b.GetName()), Doc: text(b.GetDoc()), Schema: nested})
	}
	return s, nil
}

func validateRequestToProto(r transport.ValidateRequest) *pb.ValidateRequest {
	p := &pb.ValidateRequest{Config: r.Config}
	for _, s := range r.Sources {
		p.Sources = append(p.Sources, sourceToProto(s))
	}
	for _, s := range r.Sinks {
		p.Sinks = append(p.Sinks, sinkToProto(s))
	}
	return p
}

func validateRequestFromProto(p *pb.ValidateRequest) transport.ValidateRequest {
	r := transport.ValidateRequest{Config: rawJSON(p.GetConfig())}
	for _, s := range p.GetSources() {
		r.Sources = append(r.Sources, sourceFromProto(s))
	}
	for _, s := range p.GetSinks() {
		r.Sinks = append(r.Sinks, sinkFromProto(s))
	}
	return r
}

func validateResultToProto(r transport.ValidateResult) *pb.ValidateResponse {
	p := &pb.ValidateResponse{Sources: traitsToProto(r.Sources), Sinks: traitsToProto(r.Sinks)}
	for _, pr := range r.Problems {
		p.Problems = append(p.Problems, &pb.Problem{
			Where: partToProto(pr.Where), Index: uint32(max(0, pr.Index)), Path: texts(pr.Path), Message: text(pr.Message),
		})
	}
	return p
}

// maxProblems bounds how much a plugin may find wrong.
const maxProblems = 1000

// validateResultFromProto also checks that the result belongs to req.
func validateResultFromProto(p *pb.ValidateResponse, req transport.ValidateRequest) (transport.ValidateResult, error) {
	var r transport.ValidateResult
	if len(p.GetSources()) != len(req.Sources) || len(p.GetSinks()) != len(req.Sinks) {
		return r, transport.Permanentf("the plugin was asked of %d sources and %d sinks and answered for %d and %d",
			len(req.Sources), len(req.Sinks), len(p.GetSources()), len(p.GetSinks()))
	}
	r.Sources, r.Sinks = traitsFromProto(p.GetSources()), traitsFromProto(p.GetSinks())
	for _, pr := range p.GetProblems()[:min(len(p.GetProblems()), maxProblems)] {
		problem := transport.Problem{Where: partFromProto(pr.GetWhere()), Path: texts(pr.GetPath()), Message: text(pr.GetMessage())}
		// A problem of something that was not in the request is one of the configuration as a whole.
		switch i := int(pr.GetIndex()); {
		case problem.Where == transport.InSource && i < len(req.Sources), problem.Where == transport.InSink && i < len(req.Sinks):
			problem.Index = i
		case problem.Where != transport.InConfig:
			problem.Where, problem.Path = transport.InConfig, nil
		}
		r.Problems = append(r.Problems, problem)
	}
	return r, nil
}

func traitsToProto(ts []transport.Traits) []*pb.Traits {
	ps := make([]*pb.Traits, len(ts))
	for i, t := range ts {
		ps[i] = &pb.Traits{
			Acks: t.Acks, Confirms: t.Confirms, Deduplicates: t.Deduplicates, Identifies: t.Identifies, Subscription: valid(t.Subscription), Place: valid(t.Place), Weakness: text(t.Weakness),
			Headerless: t.Headerless, Fleeting: t.Fleeting, Kind: placeKindToProto(t.Kind),
		}
	}
	return ps
}

func traitsFromProto(ps []*pb.Traits) []transport.Traits {
	if len(ps) == 0 {
		return nil
	}
	ts := make([]transport.Traits, len(ps))
	for i, p := range ps {
		ts[i] = transport.Traits{
			Acks: p.GetAcks(), Confirms: p.GetConfirms(), Deduplicates: p.GetDeduplicates(), Identifies: p.GetIdentifies(), Subscription: p.GetSubscription(), Place: p.GetPlace(),
			Weakness: text(p.GetWeakness()), Headerless: p.GetHeaderless(), Fleeting: p.GetFleeting(), Kind: placeKindFromProto(p.GetKind()),
		}
	}
	return ts
}

func partToProto(p transport.Part) pb.Part {
	switch p {
	case transport.InConfig:
		return pb.Part_PART_CONFIG
	case transport.InSource:
		return pb.Part_PART_SOURCE
	case transport.InSink:
		return pb.Part_PART_SINK
	}
	return pb.Part_PART_UNSPECIFIED
}

func partFromProto(p pb.Part) transport.Part {
	switch p {
	case pb.Part_PART_SOURCE:
		return transport.InSource
	case pb.Part_PART_SINK:
		return transport.InSink
	}
	return transport.InConfig
}

// sleep waits for d or until stop is closed, and reports whether d has passed.
func sleep(d time.Duration, stop <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-stop:
		return false
	}
}
