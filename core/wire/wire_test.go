package wire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/flogate/flogate/core/transport"
	pb "github.com/flogate/flogate/proto/flogate/transport/v1"
)

func TestErrorsKeepClassAndText(t *testing.T) {
	reason := errors.New(`mqtt.hall: subscribe "sensors/+": refused`)
	for _, err := range []error{
		reason,
		transport.Permanent(reason),
		transport.Closed(reason),
		transport.ErrClosed,
		fmt.Errorf("outside: %w", transport.Closed(reason)),
		fmt.Errorf("outside: %w", transport.Permanent(reason)),
	} {
		got := fromStatus(toStatus(err))
		if got.Error() != err.Error() {
			t.Errorf("text is %q; want %q", got, err)
		}
		if errors.Is(got, transport.ErrClosed) != errors.Is(err, transport.ErrClosed) || transport.IsPermanent(got) != transport.IsPermanent(err) {
			t.Errorf("%v: the class has changed", err)
		}
	}
	if !errors.Is(fromStatus(toStatus(context.DeadlineExceeded)), context.DeadlineExceeded) {
		t.Error("a deadline is none any more")
	}
	if toStatus(nil) != nil || fromStatus(nil) != nil {
		t.Error("nil is an error")
	}
}

func TestUnknownCodesMayBeTriedAgain(t *testing.T) {
	for code := codes.Code(1); code < 40; code++ {
		err := fromStatus(status.Error(code, "x"))
		if err == nil || err.Error() != "x" {
			t.Errorf("%v: %v", code, err)
		}
		if code > codes.Unauthenticated && (transport.IsPermanent(err) || errors.Is(err, transport.ErrClosed)) {
			t.Errorf("%v has a class", code)
		}
	}
}

func TestTextIsBoundedAndUTF8(t *testing.T) {
	for _, s := range []string{"", "ü", strings.Repeat("ü", maxText), "\xff\xfe", strings.Repeat("\xff", 2*maxText), "x" + strings.Repeat("☃", maxText)} {
		got := text(s)
		if !utf8.ValidString(got) || len(got) > 4*maxText {
			t.Errorf("%.20q has become %.20q (%d bytes)", s, got, len(got))
		}
		if utf8.ValidString(s) && strings.Contains(got, "\uFFFD") {
			t.Errorf("%.20q was cut within a character", s)
		}
	}
}

func validText() *rapid.Generator[string] { return rapid.StringN(0, 20, 60) }

func anyMessage() *rapid.Generator[transport.Message] {
	return rapid.Custom(func(t *rapid.T) transport.Message {
		m := transport.Message{
			Body:            rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "body"),
			Address:         validText().Draw(t, "address"),
			ContentType:     validText().Draw(t, "content type"),
			ContentEncoding: validText().Draw(t, "content encoding"),
			ID:              validText().Draw(t, "id"),
			CorrelationID:   string(rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "correlation")),
			ReplyTo:         validText().Draw(t, "reply to"),
			TTL:             time.Duration(rapid.Int64Min(0).Draw(t, "ttl")),
			Priority:        rapid.Uint8().Draw(t, "priority"),
			Durable:         rapid.Bool().Draw(t, "durable"),
			Retain:          rapid.Bool().Draw(t, "retain"),
			Redelivered:     rapid.Bool().Draw(t, "redelivered"),
			Attempt:         rapid.Uint32().Draw(t, "attempt"),
			SourceID:        validText().Draw(t, "source id"),
		}
		if rapid.Bool().Draw(t, "has created") {
			m.Created = time.Unix(rapid.Int64Range(-1<<35, 1<<37).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
		}
		for range rapid.IntRange(0, 4).Draw(t, "headers") {
			m.Headers = append(m.Headers, transport.Header{
				Name: validText().Draw(t, "name"), Value: string(rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "value")), Binary: rapid.Bool().Draw(t, "binary"),
			})
		}
		return m
	})
}

func TestMessageSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyMessage().Draw(t, "message")
		p := &pb.Message{}
		messageToProto(&want, p)
		b, err := proto.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > len(want.Body)+metaSize(&want) {
			t.Fatalf("%d bytes on the wire; metaSize says %d", len(b), metaSize(&want))
		}
		back := &pb.Message{}
		if err := proto.Unmarshal(b, back); err != nil {
			t.Fatal(err)
		}
		var got transport.Message
		messageFromProto(back, &got)
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestMessageThatIsNotUTF8CanBeSent(t *testing.T) {
	bad := "a\xffb"
	m := transport.Message{
		Address: bad, ContentType: bad, ContentEncoding: bad, ID: bad, CorrelationID: bad, ReplyTo: bad, SourceID: bad,
		Headers: []transport.Header{{Name: bad, Value: bad}}, Created: time.Date(200000, 1, 1, 0, 0, 0, 0, time.UTC), TTL: -1,
	}
	p := &pb.Message{}
	messageToProto(&m, p)
	b, err := proto.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	back := &pb.Message{}
	if err := proto.Unmarshal(b, back); err != nil {
		t.Fatal(err)
	}
	var got transport.Message
	messageFromProto(back, &got)
	good := "a\uFFFDb"
	want := transport.Message{
		Address: good, ContentType: good, ContentEncoding: good, ID: good, CorrelationID: bad, ReplyTo: good, SourceID: good,
		Headers: []transport.Header{{Name: good, Value: bad}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestDescriptionSurvivesTheWire(t *testing.T) {
	schema := transport.Schema{
		Attributes: []transport.Attribute{
			{Name: "url", Type: transport.String, Required: true, OneOf: []string{"a", "b"}, Doc: "Where."},
			{Name: "password", Type: transport.String, Secret: true, Default: "none"},
		},
		Blocks: []transport.Block{{Name: "tls", Doc: "TLS.", Schema: transport.Schema{Attributes: []transport.Attribute{{Name: "ca", Type: transport.String}}}}},
	}
	want := transport.Description{
		Name: "x", Version: "1", Summary: "S.", Schemes: []string{"x", "xs"}, Capabilities: []string{transport.CapTopology},
		Config: schema, Source: schema, Sink: schema,
	}
	got, err := descriptionFromProto(descriptionToProto(want))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSchemaThatIsNoneIsRefused(t *testing.T) {
	deep := &pb.Schema{}
	for range 50 {
		deep = &pb.Schema{Blocks: []*pb.Block{{Name: "b", Schema: deep}}}
	}
	wide := &pb.Schema{}
	for range 5000 {
		wide.Attributes = append(wide.Attributes, &pb.Attribute{Name: "a", Type: "string"})
	}
	for name, s := range map[string]*pb.Schema{
		"deep": deep, "wide": wide, "type": {Attributes: []*pb.Attribute{{Name: "a", Type: "quaternion"}}},
	} {
		if _, err := descriptionFromProto(&pb.DescribeResponse{Config: s}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestValidateResultHasToFitTheRequest(t *testing.T) {
	req := transport.ValidateRequest{Sources: make([]transport.Source, 1)}
	if _, err := validateResultFromProto(&pb.ValidateResponse{}, req); err == nil {
		t.Error("no traits for a source, and no error")
	}
	got, err := validateResultFromProto(&pb.ValidateResponse{
		Sources:  []*pb.Traits{{Acks: true, Place: "p", Kind: pb.PlaceKind_PLACE_KIND_FANOUT}},
		Problems: []*pb.Problem{{Where: pb.Part_PART_SOURCE, Index: math.MaxUint32, Message: "m"}, {Where: 99, Message: "n"}, {Where: pb.Part_PART_SOURCE, Path: []string{"a"}}},
	}, req)
	if err != nil {
		t.Fatal(err)
	}
	want := transport.ValidateResult{
		Sources: []transport.Traits{{Acks: true, Place: "p", Kind: transport.Fanout}},
		Problems: []transport.Problem{
			{Where: transport.InConfig, Message: "m"}, {Where: transport.InConfig, Message: "n"}, {Where: transport.InSource, Path: []string{"a"}},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestNumberingSkipsWhatWasNotSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		skipped := rapid.SliceOfN(rapid.Bool(), 1, 60).Draw(t, "skipped")
		var n numbering
		local := []uint64{0} // by number on the wire
		for i, skip := range skipped {
			if skip {
				n.skip(uint64(i + 1))
			} else {
				local = append(local, uint64(i+1))
			}
		}
		for wire := 1; wire < len(local); wire++ {
			if got := n.local(uint64(wire)); got != local[wire] {
				t.Fatalf("message %d on the wire is %d here; want %d", wire, got, local[wire])
			}
		}
	})
}

func TestLoneMessagesNeverWait(t *testing.T) {
	var p pace
	now := time.Now()
	for range 1000 {
		now = now.Add(time.Millisecond)
		if d := p.sent(1, now); d != 0 {
			t.Fatalf("a pause of %v at 1,000 messages a second", d)
		}
	}
}

func TestMessagesThatKeepComingAreGathered(t *testing.T) {
	var p pace
	now := time.Now()
	frames, messages := 0, 0
	for messages < 5000 { // one each 200 µs, for a second
		pause := p.sent(1, now)
		frames++
		messages++
		for pause > 0 && messages < 5000 {
			if pause > linger {
				t.Fatalf("a pause of %v", pause)
			}
			now = now.Add(pause)
			n := int(pause / (200 * time.Microsecond))
			pause = p.sent(n, now)
			frames++
			messages += n
		}
		now = now.Add(200 * time.Microsecond)
	}
	if frames > messages/3 {
		t.Errorf("%d frames for %d messages", frames, messages)
	}
}

func TestPausesThatGainNothingStop(t *testing.T) {
	// A peer that waits for each answer: the next message comes 300 µs after the last was sent.
	var p pace
	now := time.Now()
	pauses := 0
	for range 1000 {
		d := p.sent(1, now)
		if d > 0 {
			pauses++
		}
		now = now.Add(max(d, 300*time.Microsecond))
	}
	if pauses > 40 {
		t.Errorf("%d pauses in 1000 messages", pauses)
	}
}

func TestSettlementsMerge(t *testing.T) {
	got := progress([]transport.Settlement{
		{First: 5, Last: 6, Outcome: transport.Ack},
		{First: 1, Last: 2, Outcome: transport.Ack},
		{First: 3, Last: 4, Outcome: transport.Ack},
		{First: 7, Last: 7, Outcome: transport.Reject},
		{First: 9, Last: 9, Outcome: transport.Reject},
	}, transport.Credit{}).GetProgress()
	var ranges []string
	for _, s := range got.GetSettlements() {
		ranges = append(ranges, fmt.Sprint(s.GetFirst(), "-", s.GetLast(), " ", s.GetOutcome()))
	}
	want := []string{"1-6 OUTCOME_ACK", "7-7 OUTCOME_REJECT", "9-9 OUTCOME_REJECT"}
	if d := cmp.Diff(want, ranges); d != "" || got.GetGrant() != nil {
		t.Error(d, got.GetGrant())
	}
}

func TestFrameOfCountlessPartsIsRefused(t *testing.T) {
	c := &codec{}
	for name, m := range map[string]proto.Message{
		"messages": &pb.ReceiveResponse{Kind: &pb.ReceiveResponse_Deliveries{Deliveries: &pb.Deliveries{Messages: slices.Repeat([]*pb.Message{{}}, 1<<20)}}},
		"headers":  &pb.ReceiveResponse{Kind: &pb.ReceiveResponse_Deliveries{Deliveries: &pb.Deliveries{Messages: []*pb.Message{{Headers: slices.Repeat([]*pb.Header{{}}, 1<<20)}}}}},
		"confirms": &pb.PublishResponse{Kind: &pb.PublishResponse_Confirms{Confirms: &pb.Confirms{Confirms: slices.Repeat([]*pb.Confirm{{}}, 1<<20)}}},
		"texts":    &pb.ConnectResponse{Kind: &pb.ConnectResponse_Connected{Connected: &pb.Connected{Features: make([]string, 1<<20)}}},
	} {
		data, err := c.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Unmarshal(data, m.ProtoReflect().New().Interface()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	large := &pb.Message{Body: make([]byte, MaxBody)}
	data, err := c.Marshal(large)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Unmarshal(data, &pb.Message{}); err != nil {
		t.Errorf("a large body: %v", err)
	}
}

// FuzzWireDecode shows that nothing that a plugin sends can do more than be refused.
func FuzzWireDecode(f *testing.F) {
	seed := func(m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	seed(descriptionToProto(transport.Description{Name: "x", Config: transport.Schema{Attributes: []transport.Attribute{{Name: "a", Type: transport.Number}}}}))
	seed(&pb.ReceiveResponse{Kind: &pb.ReceiveResponse_Deliveries{Deliveries: &pb.Deliveries{First: 1, Messages: []*pb.Message{{Body: []byte("x")}}}}})
	seed(&pb.PublishResponse{Kind: &pb.PublishResponse_Confirms{Confirms: &pb.Confirms{Confirms: []*pb.Confirm{{First: 1, Last: 1}}}}})
	seed(&pb.ConnectResponse{Kind: &pb.ConnectResponse_Connected{Connected: &pb.Connected{ConnectionId: "1"}}})
	f.Fuzz(func(t *testing.T, b []byte) {
		var describe pb.DescribeResponse
		if proto.Unmarshal(b, &describe) == nil {
			_, _ = descriptionFromProto(&describe)
		}
		var validate pb.ValidateResponse
		if proto.Unmarshal(b, &validate) == nil {
			_, _ = validateResultFromProto(&validate, transport.ValidateRequest{Sources: make([]transport.Source, len(validate.GetSources())), Sinks: make([]transport.Sink, len(validate.GetSinks()))})
		}
		var connect pb.ConnectResponse
		if proto.Unmarshal(b, &connect) == nil {
			_ = connInfoFromProto(connect.GetConnected())
			_ = conditionFromProto(connect.GetCondition())
		}
		var receive pb.ReceiveResponse
		if proto.Unmarshal(b, &receive) == nil {
			s := &subscription{credit: transport.Credit{Messages: 10, Bytes: 100}, news: make(chan struct{}, 1)}
			if err := s.take(receive.GetDeliveries()); err == nil && len(s.queue) > 10 {
				t.Errorf("%d deliveries for a credit of 10", len(s.queue))
			}
		}
		var publish pb.PublishResponse
		if proto.Unmarshal(b, &publish) == nil {
			p := &publisher{sent: 10, given: 12, accepted: 10, news: make(chan struct{}, 1)}
			p.numbers.skip(3)
			p.numbers.skip(12)
			p.refused = []refusal{{number: 3, accepted: 2, cause: transport.Permanentf("x")}, {number: 12, accepted: 10, cause: transport.Permanentf("x")}}
			err := p.take(publish.GetConfirms())
			next := uint64(1)
			for _, c := range p.confirms {
				if c.First != next || c.Last < c.First || c.Last > 12 {
					t.Errorf("confirm of %d-%d where %d is next (%v)", c.First, c.Last, next, err)
				}
				next = c.Last + 1
			}
		}
		// And the plugin's half.
		var progress pb.ReceiveRequest
		if proto.Unmarshal(b, &progress) == nil {
			for _, s := range progress.GetProgress().GetSettlements() {
				_ = settlementFromProto(s)
			}
			_ = sourceFromProto(progress.GetOpen().GetSource())
		}
	})
}
