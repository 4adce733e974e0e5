package transporttest

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/flogate/flogate/core/transport"
)

func contentCases() []testCase {
	return []testCase{
		{name: "every field that is carried survives", run: fieldsSurvive},
		{name: "a message without anything arrives without anything", run: nothingIsAdded},
		{name: "any body survives", run: bodiesSurvive},
		{name: "any address survives", needs: []string{"Odd"}, run: oddAddresses},
		{name: "a filter gets what it matches, with the real address", needs: []string{"Filtered"}, run: filters},
		{name: "a retained message comes to later subscriptions", unless: func(g Target) string {
			if !g.Has.Retains {
				return "the broker retains nothing"
			}
			return ""
		}, run: retained},
	}
}

// full returns a message with every field of the set, and the same without the others.
func full(carries Field) transport.Message {
	m := transport.Message{Body: []byte{0xff, 0, 'x'}}
	has := func(f Field) bool { return carries&f != 0 }
	if has(FieldContentType) {
		m.ContentType = "application/json; charset=utf-8"
	}
	if has(FieldContentEncoding) {
		m.ContentEncoding = "gzip"
	}
	if has(FieldID) {
		m.ID = "id-" + time.Now().Format(time.RFC3339Nano)
	}
	if has(FieldCorrelationID) {
		m.CorrelationID = "correlation 1/ü"
	}
	if has(FieldCorrelationBinary) {
		m.CorrelationID = "\x00\xff\xfe binary"
	}
	if has(FieldReplyTo) {
		m.ReplyTo = "replies.to.me"
	}
	if has(FieldCreated) {
		m.Created = time.Date(2024, 2, 29, 12, 30, 15, 0, time.UTC)
	}
	if has(FieldTTL) {
		m.TTL = time.Hour
	}
	if has(FieldPriority) {
		m.Priority = 7
	}
	m.Durable = has(FieldDurable)
	if has(FieldHeaders) {
		m.Headers = append(m.Headers,
			transport.Header{Name: "zulu", Value: "last name first"},
			transport.Header{Name: "Upper-Case", Value: "Ünïcødé ☃"},
			transport.Header{Name: "x_under", Value: "a=b; c: d, \"e\""},
			transport.Header{Name: "number", Value: "42"},
			transport.Header{Name: "long", Value: strings.Repeat("0123456789", 100)},
		)
	}
	if has(FieldHeaderBinary) {
		m.Headers = append(m.Headers,
			transport.Header{Name: "binary", Value: "\x00\xff\x80\r\n", Binary: true},
			transport.Header{Name: "binary-ascii", Value: "plain", Binary: true},
			transport.Header{Name: "binary-empty", Value: "", Binary: true},
		)
	}
	if has(FieldHeaderRepeats) {
		m.Headers = append(m.Headers,
			transport.Header{Name: "repeat", Value: "2"},
			transport.Header{Name: "repeat", Value: "1"},
			transport.Header{Name: "repeat", Value: "1"},
		)
	}
	if has(FieldHeaderRepeats) && has(FieldHeaderOrder) {
		m.Headers = append(m.Headers, transport.Header{Name: "zulu", Value: "again, later"})
	}
	if has(FieldHeaderAnyText) {
		m.Headers = append(m.Headers,
			transport.Header{Name: "lines", Value: "one\r\ntwo\nthree"},
			transport.Header{Name: "spaces", Value: "  both sides\t "},
			transport.Header{Name: "empty", Value: ""},
		)
	}
	return m
}

func fieldsSurvive(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(10, 1<<20)
	want := full(s.target.Carries)
	// A second message, to see that nothing of the first clings to it.
	l.publisher(sink).publishAll(want, message(2))
	ds := st.receive(2)
	s.same(ds[0].Message, want)
	s.same(ds[1].Message, message(2))
	if s.target.Carries&FieldAttempt != 0 && ds[0].Attempt != 1 {
		s.Errorf("Attempt is %d at the first; want 1", ds[0].Attempt)
	}
	if s.target.Carries&FieldSourceID != 0 && (ds[0].SourceID == "" || ds[0].SourceID == ds[1].SourceID) {
		s.Errorf("SourceIDs are %q and %q; want two that differ", ds[0].SourceID, ds[1].SourceID)
	}
	if ds[0].Address == "" {
		s.Error("a received message has no Address")
	}
	st.settle(transport.Ack, ds)
}

// same compares what has arrived with what was sent, as far as the target carries it.
func (s *scene) same(got, want transport.Message) {
	carries := s.target.Carries
	if !bytes.Equal(got.Body, want.Body) {
		s.Errorf("Body is %.60q (%d bytes); want %.60q (%d bytes)", got.Body, len(got.Body), want.Body, len(want.Body))
	}
	text := func(f Field, name, got, want string) {
		if carries&f != 0 && got != want {
			s.Errorf("%s is %q; want %q", name, got, want)
		}
	}
	text(FieldContentType, "ContentType", got.ContentType, want.ContentType)
	text(FieldContentEncoding, "ContentEncoding", got.ContentEncoding, want.ContentEncoding)
	text(FieldID, "ID", got.ID, want.ID)
	text(FieldCorrelationID, "CorrelationID", got.CorrelationID, want.CorrelationID)
	text(FieldReplyTo, "ReplyTo", got.ReplyTo, want.ReplyTo)
	if carries&FieldCreated != 0 && !got.Created.Truncate(time.Second).Equal(want.Created) {
		s.Errorf("Created is %v; want %v", got.Created, want.Created)
	}
	if carries&FieldTTL != 0 && (got.TTL > want.TTL || got.TTL < want.TTL-time.Minute) {
		s.Errorf("TTL is %v; want %v or a little less", got.TTL, want.TTL)
	}
	if carries&FieldPriority != 0 && got.Priority != want.Priority {
		s.Errorf("Priority is %d; want %d", got.Priority, want.Priority)
	}
	if carries&FieldDurable != 0 && got.Durable != want.Durable {
		s.Errorf("Durable is %t; want %t", got.Durable, want.Durable)
	}
	if got.Retain {
		s.Error("Retain is set on a message that was not retained")
	}
	if carries&FieldHeaders == 0 {
		return
	}
	gotHeaders, wantHeaders := got.Headers, want.Headers
	if carries&FieldHeaderOrder == 0 {
		gotHeaders, wantHeaders = byName(gotHeaders), byName(wantHeaders)
	}
	if !slices.Equal(gotHeaders, wantHeaders) {
		s.Errorf("Headers are\n\t%+v\nwant\n\t%+v", gotHeaders, wantHeaders)
	}
}

func byName(hs []transport.Header) []transport.Header {
	return slices.SortedStableFunc(slices.Values(hs), func(a, b transport.Header) int { return cmp.Compare(a.Name, b.Name) })
}

func nothingIsAdded(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(1, 1<<20)
	l.publisher(sink).publishAll(transport.Message{Body: []byte("x")})
	d := st.receive(1)[0]
	s.same(d.Message, transport.Message{Body: []byte("x")})
	if len(d.Headers) != 0 {
		s.Errorf("Headers are %+v; want none", d.Headers)
	}
}

func bodiesSurvive(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(100, 1<<24)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	bodies := [][]byte{
		nil,
		{},
		{0},
		[]byte("\xff\xfe not UTF-8 \xc3\x28"),
		every,
		[]byte(`{"json": true}`),
		[]byte("\r\n.\r\n\r\nPING\r\n"),
		bytes.Repeat([]byte{0}, 4095), bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4097),
		bytes.Repeat([]byte("0123456789abcdef"), 1<<14), // 256 KiB
	}
	var msgs []transport.Message
	for _, b := range bodies {
		msgs = append(msgs, transport.Message{Body: b, Durable: true})
	}
	l.publisher(sink).publishAll(msgs...)
	for i, d := range st.receive(len(bodies)) {
		if !bytes.Equal(d.Body, bodies[i]) {
			s.Errorf("body %d is %.40q (%d bytes); want %.40q (%d bytes)", i, d.Body, len(d.Body), bodies[i], len(bodies[i]))
		}
	}
}

func oddAddresses(s *scene) {
	l := s.connect()
	for _, p := range s.target.Odd(s) {
		st := l.subscribe(s.dress(p.Source, plenty))
		st.grant(10, 1<<20)
		l.publisher(p.Sink).publishAll(message(1))
		s.inOrder(st.receive(1), 1, 1)
		st.close()
	}
}

func filters(s *scene) {
	src, sink, match, other := s.target.Filtered(s)
	l := s.connect()
	st := l.subscribe(s.dress(src, plenty))
	st.grant(100, 1<<20)
	var msgs []transport.Message
	for _, a := range slices.Concat(match, other, match) {
		msgs = append(msgs, transport.Message{Body: []byte(a), Address: a, Durable: true})
	}
	l.publisher(sink).publish(msgs...) // a broker may refuse what nobody has asked for
	ds := st.receive(2 * len(match))
	for i, d := range ds {
		want := match[i%len(match)]
		if string(d.Body) != want || d.Address != want {
			s.Errorf("delivery %d has the address %q and the body %q; want %q for both", d.Seq, d.Address, d.Body, want)
		}
	}
	st.settle(transport.Ack, ds)
	st.nothing(s.quiet(), "the filter matches nothing else")
}

func retained(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	kept := message(1)
	kept.Retain = true
	pub := l.publisher(sink)
	pub.publishAll(kept)
	st := l.subscribe(src)
	st.grant(10, 1<<20)
	d := st.receive(1)
	s.inOrder(d, 1, 1)
	if !d[0].Retain {
		s.Error("Retain is not set on a message that was retained")
	}
	st.settle(transport.Ack, d)
	// An empty body makes the broker forget.
	pub.publishAll(transport.Message{Retain: true})
	st.settle(transport.Ack, st.receive(1))
	later := src
	later.Name = s.name("src")
	st = l.subscribe(later)
	st.grant(10, 1<<20)
	st.nothing(s.quiet(), "the retained message was taken back")
}
