package mdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/ipv4"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const id = "f18a4ab8-9360-4581-9b0a-0123456789ab"

var (
	hall      = Runtime{ID: id, Type: "flogate", Label: "Hall 1.2", Port: 3569}
	addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("fe80::1/64")}
)

const (
	service  = "_fbp-ws._tcp.local."
	instance = "Hall 1-2 f18a4ab8._fbp-ws._tcp.local."
	host     = "flogate-f18a4ab8-9360-4581-9b0a-0123456789ab.local."
)

// show is a record as people write it.
func show(r dnsmessage.Resource) string {
	var body string
	switch b := r.Body.(type) {
	case *dnsmessage.PTRResource:
		body = b.PTR.String()
	case *dnsmessage.SRVResource:
		body = fmt.Sprintf("%s:%d", b.Target, b.Port)
	case *dnsmessage.TXTResource:
		body = strings.Join(b.TXT, "|")
	case *dnsmessage.AResource:
		body = netip.AddrFrom4(b.A).String()
	case *dnsmessage.AAAAResource:
		body = netip.AddrFrom16(b.AAAA).String()
	}
	unique := ""
	if r.Header.Class&flush != 0 {
		unique = "unique "
	}
	return fmt.Sprintf("%s%s %d %s", unique, strings.TrimPrefix(r.Header.Type.String(), "Type"), r.Header.TTL, body)
}

func showAll(records []dnsmessage.Resource) []string {
	var s []string
	for _, r := range records {
		s = append(s, show(r))
	}
	return s
}

const (
	ptr  = "PTR 120 " + instance
	enum = "PTR 120 " + service
	srv  = "unique SRV 120 " + host + ":3569"
	txt  = "unique TXT 120 txtvers=1|id=" + id + "|type=flogate|label=Hall 1.2"
	a    = "unique A 120 192.0.2.7"
	aaaa = "unique AAAA 120 fe80::1"
)

func query(t *testing.T, m dnsmessage.Message) []byte {
	t.Helper()
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func ask(name string, kind dnsmessage.Type) dnsmessage.Message {
	return dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
}

func pointer(name, target string, ttl uint32) dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl},
		Body:   &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(target)},
	}
}

func TestAnswers(t *testing.T) {
	z, err := newZone(hall)
	if err != nil {
		t.Fatal(err)
	}
	knowing := func(m dnsmessage.Message, known ...dnsmessage.Resource) dnsmessage.Message {
		m.Answers = known
		return m
	}
	for _, c := range []struct {
		name           string
		query          dnsmessage.Message
		answers, extra []string
		shared         bool
	}{
		{"who is there", ask(service, dnsmessage.TypePTR), []string{ptr}, []string{srv, txt, a, aaaa}, true},
		{"in capitals", ask(strings.ToUpper(service), dnsmessage.TypePTR), []string{ptr}, []string{srv, txt, a, aaaa}, true},
		{"of whom others are known", knowing(ask(service, dnsmessage.TypePTR), pointer(service, "other."+service, 120)), []string{ptr}, []string{srv, txt, a, aaaa}, true},
		{"of whom we are known", knowing(ask(service, dnsmessage.TypePTR), pointer(service, instance, 100)), nil, nil, false},
		{"of whom we are known for a moment", knowing(ask(service, dnsmessage.TypePTR), pointer(service, instance, 59)), []string{ptr}, []string{srv, txt, a, aaaa}, true},
		{"what is there", ask("_services._dns-sd._udp.local.", dnsmessage.TypePTR), []string{enum}, []string{srv, txt, a, aaaa}, true},
		{"where", ask(instance, dnsmessage.TypeSRV), []string{srv}, []string{txt, a, aaaa}, false},
		{"what of it", ask(instance, dnsmessage.TypeTXT), []string{txt}, []string{srv, a, aaaa}, false},
		{"anything", ask(instance, dnsmessage.TypeALL), []string{srv, txt}, []string{a, aaaa}, false},
		{"address", ask(host, dnsmessage.TypeA), []string{a}, []string{srv, txt, aaaa}, false},
		{"address of today", ask(host, dnsmessage.TypeAAAA), []string{aaaa}, []string{srv, txt, a}, false},
		{"another service", ask("_http._tcp.local.", dnsmessage.TypePTR), nil, nil, false},
		{"another instance", ask("Other."+service, dnsmessage.TypeSRV), nil, nil, false},
		{"another type", ask(service, dnsmessage.TypeMX), nil, nil, false},
		{"another class", dnsmessage.Message{Questions: []dnsmessage.Question{{Name: z.service, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassCHAOS}}}, nil, nil, false},
		{"answered to the asker alone", dnsmessage.Message{Questions: []dnsmessage.Question{{Name: z.service, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET | flush}}}, []string{ptr}, []string{srv, txt, a, aaaa}, true},
		{"nothing", dnsmessage.Message{}, nil, nil, false},
		{"an answer", dnsmessage.Message{Header: dnsmessage.Header{Response: true}, Questions: ask(service, dnsmessage.TypePTR).Questions}, nil, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, shared := z.answer(query(t, c.query), addresses, false)
			if m == nil {
				if c.answers != nil {
					t.Error("no answer")
				}
				return
			}
			if diff := cmp.Diff(c.answers, showAll(m.Answers)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.extra, showAll(m.Additionals)); diff != "" {
				t.Error("in addition:", diff)
			}
			if shared != c.shared || m.ID != 0 || m.Questions != nil {
				t.Errorf("shared %v, id %d, questions %v", shared, m.ID, m.Questions)
			}
			if _, err := m.Pack(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestProgramsWithoutMulticastGetAnOrdinaryAnswer(t *testing.T) {
	z, err := newZone(hall)
	if err != nil {
		t.Fatal(err)
	}
	q := ask(host, dnsmessage.TypeA)
	q.ID = 77
	m, _ := z.answer(query(t, q), addresses, true)
	if m == nil || m.ID != 77 || len(m.Questions) != 1 {
		t.Fatalf("%+v", m)
	}
	if diff := cmp.Diff([]string{"A 10 192.0.2.7"}, showAll(m.Answers)); diff != "" {
		t.Error(diff)
	}
}

func TestGoodbyeLeavesOthersAlone(t *testing.T) {
	z, err := newZone(hall)
	if err != nil {
		t.Fatal(err)
	}
	got := showAll(z.announcement(addresses, 0).Answers)
	want := []string{strings.Replace(ptr, "120", "0", 1), strings.Replace(srv, "120", "0", 1), strings.Replace(txt, "120", "0", 1), "unique A 0 192.0.2.7", "unique AAAA 0 fe80::1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNamesFitWhateverTheLabel(t *testing.T) {
	for _, label := range []string{"", "a.b", strings.Repeat("é", 200), "tab\there", "\xff", strings.Repeat(".", 500)} {
		z, err := newZone(Runtime{ID: id, Type: "flogate", Label: label, Port: 1})
		if err != nil {
			t.Errorf("%q: %v", label, err)
			continue
		}
		if _, err := z.announcement(addresses, 120).Pack(); err != nil {
			t.Errorf("%q: %v", label, err)
		}
	}
	for _, r := range []Runtime{
		{Type: "flogate", Port: 1},
		{ID: "no uuid", Type: "flogate", Port: 1},
		{ID: id, Port: 1},
		{ID: id, Type: "flogate"},
	} {
		if err := Announce(t.Context(), r, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("announced: %+v", r)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	z, err := newZone(hall)
	if err != nil {
		f.Fatal(err)
	}
	m := ask(service, dnsmessage.TypePTR)
	m.Answers = []dnsmessage.Resource{pointer(service, "other."+service, 120)}
	packed, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, legacy := range []bool{false, true} {
			if m, _ := z.answer(b, addresses, legacy); m != nil {
				if _, err := m.Pack(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// The whole of it, on the loopback interface and a port of its own.
func TestRuntimeIsFoundAndSaysGoodbye(t *testing.T) {
	free, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.LocalAddr().(*net.UDPAddr).Port
	_ = free.Close()
	z, err := newZone(hall)
	if err != nil {
		t.Fatal(err)
	}
	onLoopback := func(i net.Interface) bool { return i.Flags&net.FlagLoopback != 0 }
	announcer := announcer{zone: z, log: slog.New(slog.DiscardHandler), port: port, wanted: onLoopback}

	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(224, 0, 0, 0), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := socket.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	browser := ipv4.NewPacketConn(socket)
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(interfaces, onLoopback)
	if i < 0 {
		t.Fatal("no loopback interface")
	}
	for _, err := range []error{
		browser.JoinGroup(&interfaces[i], announcer.group()),
		browser.SetMulticastInterface(&interfaces[i]),
		browser.SetMulticastLoopback(true),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// hear waits for an answer of which ok is true.
	hear := func(what string, from net.PacketConn, ok func(dnsmessage.Message) bool) {
		t.Helper()
		b := make([]byte, largest)
		for {
			n, _, err := from.ReadFrom(b)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			var m dnsmessage.Message
			if err := m.Unpack(b[:n]); err != nil {
				t.Fatal(err)
			}
			if m.Response && ok(m) {
				return
			}
		}
	}
	first := func(want string) func(dnsmessage.Message) bool {
		return func(m dnsmessage.Message) bool { return len(m.Answers) > 0 && show(m.Answers[0]) == want }
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- announcer.run(ctx) }()
	hear("announcement", socket, first(ptr))
	hear("announcement once more", socket, first(ptr))

	if _, err := socket.WriteTo(query(t, ask(service, dnsmessage.TypePTR)), announcer.group()); err != nil {
		t.Fatal(err)
	}
	hear("answer", socket, func(m dnsmessage.Message) bool {
		return len(m.Answers) == 1 && show(m.Answers[0]) == ptr && slices.Contains(showAll(m.Additionals), "unique A 120 127.0.0.1")
	})

	simple, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer simple.Close()
	if err := simple.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := ipv4.NewPacketConn(simple).SetMulticastInterface(&interfaces[i]); err != nil {
		t.Fatal(err)
	}
	q := ask(instance, dnsmessage.TypeSRV)
	q.ID = 4711
	if _, err := simple.WriteTo(query(t, q), announcer.group()); err != nil {
		t.Fatal(err)
	}
	hear("answer to a simple program", simple, func(m dnsmessage.Message) bool { return m.ID == 4711 })

	cancel()
	hear("good-bye", socket, first("PTR 0 "+instance))
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
}

func TestNobodyFromElsewhereGetsAnAnswer(t *testing.T) {
	l := link{prefixes: addresses}
	for addr, want := range map[string]bool{
		"192.0.2.99": true, "::ffff:192.0.2.99": true, "198.51.100.1": false, "127.0.0.1": false,
	} {
		if got := l.has(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

func TestAnnouncingEndsWhenItsSocketCannotBe(t *testing.T) {
	taken, err := net.ListenPacket("udp4", "0.0.0.0:0") // shares with nobody
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	a := announcer{log: slog.New(slog.DiscardHandler), port: taken.LocalAddr().(*net.UDPAddr).Port, wanted: onNetwork}
	var failed *net.OpError
	if err := a.run(t.Context()); !errors.As(err, &failed) {
		t.Errorf("%v", err)
	}
}
