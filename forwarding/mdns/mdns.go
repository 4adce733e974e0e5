// Package mdns makes a runtime known on the local network: programs that browse for "_fbp-ws._tcp" find it (RFC 6762 and
// 6763). It announces one service and answers questions about that; it asks nothing, and knows of nobody else.
//
// Its names are made of the runtime's UUID, so they are its own without asking around first. It speaks IPv4, and tells of
// IPv6 addresses too.
//
// Nothing in the program uses it yet.
package mdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/ipv4"
)

// Runtime is what is announced.
type Runtime struct {
	// ID is the runtime's UUID, Type what it gives as its type ("flogate"), Label what people call it, which may be empty.
	ID, Type, Label string
	// Port is where its WebSocket is, on all addresses of this machine.
	Port uint16
}

const (
	port = 5353
	// lookAgain is how often interfaces are looked at: a cable is plugged in, an address is given.
	lookAgain = 30 * time.Second
	// repeat is when an announcement is said once more, because datagrams get lost.
	repeat = time.Second
	// largest is what a message may have, headers of IP and UDP included (RFC 6762, section 17).
	largest = 9000
)

// Announce announces a runtime until ctx ends, and says then that it is gone. It returns an error if it cannot begin, or cannot
// listen any more.
func Announce(ctx context.Context, r Runtime, log *slog.Logger) error {
	z, err := newZone(r)
	if err != nil {
		return fmt.Errorf("mdns: %w", err)
	}
	a := announcer{zone: z, log: log, port: port, wanted: onNetwork}
	if err := a.run(ctx); err != nil {
		return fmt.Errorf("mdns: %w", err)
	}
	return nil
}

// onNetwork says whether somebody else may be on an interface.
func onNetwork(i net.Interface) bool {
	const need = net.FlagUp | net.FlagMulticast
	return i.Flags&need == need && i.Flags&net.FlagLoopback == 0
}

type announcer struct {
	zone   zone
	log    *slog.Logger
	port   int
	wanted func(net.Interface) bool

	conn  *ipv4.PacketConn
	links map[int]link
	own   map[netip.Addr]bool // addresses of this machine
}

// link is an interface, with its addresses.
type link struct {
	net.Interface
	prefixes []netip.Prefix
}

func (a *announcer) group() *net.UDPAddr {
	return &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: a.port}
}

func (a *announcer) run(ctx context.Context) error {
	// An address for multicast makes the socket share its port, which is everybody's on this machine.
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(224, 0, 0, 0), Port: a.port})
	if err != nil {
		return err
	}
	a.conn, a.links = ipv4.NewPacketConn(socket), map[int]link{}
	stop := context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Now()) })
	defer stop()
	defer func() { _ = socket.Close() }()
	for _, set := range []error{
		a.conn.SetControlMessage(ipv4.FlagInterface, true),
		a.conn.SetMulticastTTL(255),
		a.conn.SetMulticastLoopback(true), // for those who look on this machine
	} {
		if set != nil {
			return set
		}
	}

	// One goroutine does everything: what is due, and in between whatever is asked.
	var again []int
	next := time.Now()
	buffer := make([]byte, largest)
	for {
		if now := time.Now(); !now.Before(next) {
			a.announce(again...)
			again, next = a.look(), now.Add(lookAgain)
			a.announce(again...)
			if len(again) > 0 {
				next = now.Add(repeat)
			}
		}
		if err := socket.SetReadDeadline(next); err != nil {
			return err
		}
		if ctx.Err() != nil { // the deadline just set may have taken the place of the one that ends the reading
			a.leave()
			return nil
		}
		n, cm, from, err := a.conn.ReadFrom(buffer)
		var timeout net.Error
		switch {
		case err == nil:
			if src, ok := from.(*net.UDPAddr); ok && cm != nil {
				a.respond(ctx, buffer[:n], cm.IfIndex, src.AddrPort())
			}
		case errors.As(err, &timeout) && timeout.Timeout():
		default:
			return err
		}
	}
}

// look joins the interfaces that have come, and returns which those are, or have other addresses now.
func (a *announcer) look() (news []int) {
	interfaces, err := net.Interfaces()
	if err != nil {
		a.log.Warn("interfaces cannot be listed", "error", err)
		return nil
	}
	links, own := map[int]link{}, map[netip.Addr]bool{}
	for _, i := range interfaces {
		l := link{Interface: i, prefixes: prefixes(i)}
		for _, p := range l.prefixes {
			own[p.Addr()] = true
		}
		if !a.wanted(i) {
			continue
		}
		before, known := a.links[i.Index]
		if !known {
			// It may be joined already, by a former life of the interface.
			if err := a.conn.JoinGroup(&i, a.group()); err != nil {
				a.log.Debug("interface not joined", "interface", i.Name, "error", err)
			}
		}
		links[i.Index] = l
		if !known || fmt.Sprint(before.prefixes) != fmt.Sprint(l.prefixes) {
			news = append(news, i.Index)
		}
	}
	a.links, a.own = links, own
	return news
}

func prefixes(i net.Interface) []netip.Prefix {
	addrs, err := i.Addrs()
	if err != nil {
		return nil // it has gone in this moment
	}
	var found []netip.Prefix
	for _, addr := range addrs {
		if p, err := netip.ParsePrefix(addr.String()); err == nil {
			found = append(found, p)
		}
	}
	return found
}

func (a *announcer) announce(links ...int) {
	for _, i := range links {
		l, ok := a.links[i]
		if !ok {
			continue
		}
		a.send(a.zone.announcement(l.prefixes, timeToLive), l, a.group())
	}
}

// leave tells everybody to forget the runtime.
func (a *announcer) leave() {
	for _, l := range a.links {
		a.send(a.zone.announcement(l.prefixes, 0), l, a.group())
	}
}

func (a *announcer) respond(ctx context.Context, query []byte, i int, from netip.AddrPort) {
	l, ok := a.links[i]
	if !ok || !l.has(from.Addr()) && !a.own[from.Addr().Unmap()] {
		return // nobody from elsewhere gets an answer: the address may be a victim's
	}
	legacy := int(from.Port()) != a.port
	m, shared := a.zone.answer(query, l.prefixes, legacy)
	if m == nil {
		return
	}
	if shared { // others may answer the same question
		timer := time.NewTimer(20*time.Millisecond + rand.N(100*time.Millisecond))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
	to := a.group()
	if legacy {
		to = net.UDPAddrFromAddrPort(from)
	}
	a.send(m, l, to)
}

func (l link) has(addr netip.Addr) bool {
	addr = addr.Unmap()
	for _, p := range l.prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func (a *announcer) send(m *dnsmessage.Message, l link, to *net.UDPAddr) {
	packed, err := m.Pack()
	if err == nil {
		_ = a.conn.SetWriteDeadline(time.Now().Add(time.Second)) // without one it only takes longer
		_, err = a.conn.WriteTo(packed, &ipv4.ControlMessage{IfIndex: l.Index}, to)
	}
	if err != nil {
		a.log.Debug("announcement not sent", "interface", l.Name, "error", err)
	}
}
