package mdns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// timeToLive is in seconds how long others remember a record. A gateway that was killed says no good-bye.
	timeToLive = 120
	// legacyTimeToLive is for programs that ask without knowing of multicast, and cannot be told of changes.
	legacyTimeToLive = 10
	// flush, in a record's class, says that it takes the place of all others of its name; in a question's, that an answer
	// may come to the asker alone.
	flush = 1 << 15

	longestLabel = 63
	longestText  = 255
)

// zone is everything there is to know about a runtime.
type zone struct {
	all, service, instance, host dnsmessage.Name
	port                         uint16
	text                         []string
}

func newZone(r Runtime) (zone, error) {
	if r.ID == "" || strings.Trim(strings.ToLower(r.ID), "0123456789abcdef-") != "" || len(r.ID) > 36 {
		return zone{}, fmt.Errorf("runtime %q: its id is no UUID", r.ID)
	}
	if r.Type == "" || r.Port == 0 {
		return zone{}, errors.New("a runtime needs a type and a port")
	}
	// A name as people see it, and what makes it the only one of its kind. A label of a name has no dots here.
	suffix := " " + r.ID[:min(8, len(r.ID))]
	label := strings.Map(func(c rune) rune {
		if c == '.' || c < ' ' || c == utf8.RuneError {
			return '-'
		}
		return c
	}, r.Label)
	if label == "" {
		label = r.Type
	}
	if most := longestLabel - len(suffix); len(label) > most {
		label = strings.ToValidUTF8(label[:most], "")
	}
	z := zone{port: r.Port, text: []string{"txtvers=1", "id=" + r.ID, "type=" + r.Type}}
	if r.Label != "" {
		z.text = append(z.text, "label="+r.Label)
	}
	for i, t := range z.text {
		if len(t) > longestText {
			z.text[i] = strings.ToValidUTF8(t[:longestText], "")
		}
	}
	var err error
	for _, n := range []struct {
		name *dnsmessage.Name
		text string
	}{
		{&z.all, "_services._dns-sd._udp.local."},
		{&z.service, "_fbp-ws._tcp.local."},
		{&z.instance, label + suffix + "._fbp-ws._tcp.local."},
		{&z.host, "flogate-" + strings.ToLower(r.ID) + ".local."},
	} {
		if *n.name, err = dnsmessage.NewName(n.text); err != nil {
			return zone{}, fmt.Errorf("name %q: %w", n.text, err)
		}
	}
	return z, nil
}

// records are all there are, for somebody who is where those addresses are.
func (z zone) records(addresses []netip.Prefix, ttl uint32) []dnsmessage.Resource {
	record := func(name dnsmessage.Name, unique bool, body dnsmessage.ResourceBody) dnsmessage.Resource {
		class := dnsmessage.ClassINET
		if unique {
			class |= flush
		}
		return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name, Type: typeOf(body), Class: class, TTL: ttl}, Body: body}
	}
	all := []dnsmessage.Resource{
		record(z.service, false, &dnsmessage.PTRResource{PTR: z.instance}),
		record(z.all, false, &dnsmessage.PTRResource{PTR: z.service}),
		record(z.instance, true, &dnsmessage.SRVResource{Port: z.port, Target: z.host}),
		record(z.instance, true, &dnsmessage.TXTResource{TXT: z.text}),
	}
	for _, p := range addresses {
		if addr := p.Addr(); addr.Is4() {
			all = append(all, record(z.host, true, &dnsmessage.AResource{A: addr.As4()}))
		} else {
			all = append(all, record(z.host, true, &dnsmessage.AAAAResource{AAAA: addr.As16()}))
		}
	}
	return all
}

func typeOf(body dnsmessage.ResourceBody) dnsmessage.Type {
	switch body.(type) {
	case *dnsmessage.PTRResource:
		return dnsmessage.TypePTR
	case *dnsmessage.SRVResource:
		return dnsmessage.TypeSRV
	case *dnsmessage.TXTResource:
		return dnsmessage.TypeTXT
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	default:
		return dnsmessage.TypeAAAA
	}
}

// announcement tells everything; with a time to live of 0, that it is no longer so, except that there are runtimes at all:
// there may be others.
func (z zone) announcement(addresses []netip.Prefix, ttl uint32) *dnsmessage.Message {
	m := &dnsmessage.Message{Header: dnsmessage.Header{Response: true, Authoritative: true}}
	for _, r := range z.records(addresses, ttl) {
		if ttl > 0 || r.Header.Name != z.all {
			m.Answers = append(m.Answers, r)
		}
	}
	return m
}

// answer returns the answer to a query, or nil if there is nothing to say; shared says whether others may have one as well.
// legacy is a query from a program that knows no multicast: its answer is like any DNS server's.
func (z zone) answer(query []byte, addresses []netip.Prefix, legacy bool) (m *dnsmessage.Message, shared bool) {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil || header.Response || header.OpCode != 0 {
		return nil, false
	}
	questions, err := p.AllQuestions()
	if err != nil {
		return nil, false
	}
	ttl := uint32(timeToLive)
	if legacy {
		ttl = legacyTimeToLive
	}
	m = &dnsmessage.Message{Header: dnsmessage.Header{Response: true, Authoritative: true}}
	known := z.known(&p)
	var rest []dnsmessage.Resource
	for _, r := range z.records(addresses, ttl) {
		if legacy {
			r.Header.Class &^= flush
		}
		if !asked(questions, r.Header) {
			rest = append(rest, r)
			continue
		}
		if _, isPointer := r.Body.(*dnsmessage.PTRResource); isPointer {
			if known[strings.ToLower(r.Header.Name.String())] {
				continue // the asker has it
			}
			shared = true
		}
		m.Answers = append(m.Answers, r)
	}
	if len(m.Answers) == 0 {
		return nil, false
	}
	// Whoever asks for one record asks for the others next. The list of all services is not among them.
	for _, r := range rest {
		if r.Header.Name != z.all && r.Header.Name != z.service {
			m.Additionals = append(m.Additionals, r)
		}
	}
	if legacy {
		m.ID = header.ID
		for _, q := range questions {
			q.Class &^= flush
			m.Questions = append(m.Questions, q)
		}
	}
	return m, shared
}

func asked(questions []dnsmessage.Question, h dnsmessage.ResourceHeader) bool {
	for _, q := range questions {
		if class := q.Class &^ flush; class != dnsmessage.ClassINET && class != dnsmessage.ClassANY {
			continue
		}
		if (q.Type == h.Type || q.Type == dnsmessage.TypeALL) && strings.EqualFold(q.Name.String(), h.Name.String()) {
			return true
		}
	}
	return false
}

// known returns the names whose pointer to us the asker knows already, and not only for a little longer.
func (z zone) known(p *dnsmessage.Parser) map[string]bool {
	names := map[string]bool{}
	for {
		h, err := p.AnswerHeader()
		if err != nil {
			return names // that is all there is, or all that can be read
		}
		if h.Type != dnsmessage.TypePTR {
			if p.SkipAnswer() != nil {
				return names
			}
			continue
		}
		body, err := p.PTRResource()
		if err != nil {
			return names
		}
		target := body.PTR.String()
		if h.TTL >= timeToLive/2 && (strings.EqualFold(target, z.instance.String()) || strings.EqualFold(target, z.service.String())) {
			names[strings.ToLower(h.Name.String())] = true
		}
	}
}
