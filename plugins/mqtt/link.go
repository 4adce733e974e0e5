package mqtt

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// The packets that a server sends, and what we write by ourselves.
const (
	packetConnack  = 2
	packetPublish  = 3
	packetPuback   = 4
	packetPubrec   = 5
	packetPubrel   = 6
	packetPubcomp  = 7
	packetSuback   = 9
	packetUnsuback = 11
	packetPingresp = 13

	typePuback  = packetPuback << 4
	typePubrec  = packetPubrec << 4
	typePingreq = 12 << 4

	typeDisconnect = 14 << 4
)

const (
	// handshakeTime bounds everything from the first byte to the CONNACK, where ctx does not.
	handshakeTime = 30 * time.Second
	// readBuffer holds a few dozen small messages: the library reads each of them in three to five pieces.
	readBuffer = 32 << 10
	// writeChunk is what the peer has to take within the time of silence: slow is not lost.
	writeChunk = 64 << 10
)

// errGone ends a connection that we have ended.
var errGone = errors.New("disconnected")

// errHungUp is the end of a connection that the broker has ended.
var errHungUp = errors.New("the broker has closed the connection")

// errBroker is what a broker does that MQTT 3.1.1 does not allow.
var errBroker = errors.New("the broker broke the protocol")

// link is the connection under one MQTT client of the library. Of what the client reads and writes it sees the packets'
// borders, and with that it
//
//   - ends the connection when not a byte has come for the time of silence, or a chunk could not be written for as long.
//     The library itself would give up on a large message over a slow line, because it waits for whole packets;
//   - stops reading while paused, at a packet's border. That is the only way to slow down a broker that sends more than
//     anybody wants: disconnecting instead would void the acknowledgements of what is out, and nothing would ever progress
//     when the broker sends all of it again. Meanwhile acknowledgements and pings go out;
//   - refuses packets that the library would index out of range with, or take for an accepted connection.
//
// Read is called by one goroutine at a time; the rest may be called concurrently.
type link struct {
	net.Conn
	socket  io.Closer // the lowest part of Conn: closing it waits for nothing
	silence time.Duration

	in      *bufio.Reader
	left    int // bytes of the present packet that have not been read
	greeted bool

	writing sync.Mutex // held while a packet is written

	mu     sync.Mutex
	moved  sync.Cond // something of the following has changed
	paused bool
	going  bool // DISCONNECT is on its way: nothing more is wanted
	err    error
	down   chan struct{} // closed when err is set
}

func newLink(conn net.Conn, socket io.Closer, silence time.Duration) *link {
	l := &link{Conn: conn, socket: socket, silence: silence, down: make(chan struct{})}
	l.moved.L = &l.mu
	l.in = bufio.NewReaderSize(impatient{l}, readBuffer)
	return l
}

// impatient reads from the connection and lets no silence pass.
type impatient struct{ l *link }

func (r impatient) Read(p []byte) (int, error) {
	if r.l.greeted {
		if err := r.l.Conn.SetReadDeadline(time.Now().Add(r.l.silence)); err != nil {
			return 0, err
		}
	}
	n, err := r.l.Conn.Read(p)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && r.l.greeted:
		err = fmt.Errorf("the broker has been silent for %s", r.l.silence)
	case errors.Is(err, io.EOF):
		err = errHungUp
	}
	return n, err
}

func (l *link) Read(p []byte) (int, error) {
	if l.left == 0 {
		if err := l.next(); err != nil {
			return 0, l.fail(err)
		}
	}
	n, err := l.in.Read(p[:min(len(p), l.left)])
	l.left -= n
	if err != nil {
		err = l.fail(err)
	}
	return n, err
}

// next waits for the next packet, and while the link is paused, and looks at its head.
func (l *link) next() error {
	l.mu.Lock()
	for l.paused && !l.going && l.err == nil {
		l.moved.Wait()
	}
	going := l.going
	l.mu.Unlock()
	if going {
		_, err := io.Copy(io.Discard, l.in)
		return errors.Join(errGone, err)
	}

	var length, size int
	for size = 2; ; size++ {
		head, err := l.in.Peek(size)
		if err != nil {
			return err
		}
		length |= int(head[size-1]&0x7f) << (7 * (size - 2))
		if head[size-1] < 0x80 {
			break
		}
		if size == 5 {
			return fmt.Errorf("%w: a packet's length has no end", errBroker)
		}
	}
	head, err := l.in.Peek(size)
	if err != nil {
		return err
	}
	kind, flags := head[0]>>4, head[0]&0xf
	if !l.greeted {
		if err := l.greet(kind, length); err != nil {
			return err
		}
	} else if err := checkPacket(kind, flags, length); err != nil {
		return err
	}
	l.left = size + length
	return nil
}

// greet checks the first packet. The library takes an unknown return code for acceptance.
func (l *link) greet(kind byte, length int) error {
	if kind != packetConnack || length != 2 {
		return fmt.Errorf("%w: no CONNACK but a packet of type %d", errBroker, kind)
	}
	packet, err := l.in.Peek(4)
	if err != nil {
		return err
	}
	if code := packet[3]; code > 5 {
		return fmt.Errorf("%w: return code %d", errBroker, code)
	}
	l.greeted = true // from now on silence counts
	return l.Conn.SetDeadline(time.Time{})
}

// checkPacket refuses what would harm the library. Only a PUBLISH may be long.
func checkPacket(kind, flags byte, length int) error {
	ok := false
	switch kind {
	case packetPublish:
		qos := flags >> 1 & 3
		ok = qos < 3 && length > 2
	case packetPuback, packetPubrec, packetPubrel, packetPubcomp, packetUnsuback:
		ok = length == 2
	case packetSuback:
		ok = length == 3 // for the one filter that we ever ask for
	case packetPingresp:
		ok = length == 0
	}
	if !ok {
		return fmt.Errorf("%w: a packet of type %d with flags %d and %d bytes", errBroker, kind, flags, length)
	}
	return nil
}

// Write writes whole packets, one call at a time.
func (l *link) Write(p []byte) (int, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	written := 0
	for written < len(p) {
		if err := l.Conn.SetWriteDeadline(time.Now().Add(l.silence)); err != nil {
			return written, l.fail(err)
		}
		n, err := l.Conn.Write(p[written:min(len(p), written+writeChunk)])
		written += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("the broker has read nothing for %s", l.silence)
		}
		if err != nil {
			return written, l.fail(err)
		}
	}
	return written, nil
}

// pause stops reading at the next packet's border.
func (l *link) pause() { l.setPaused(true) }

// resume goes on reading.
func (l *link) resume() { l.setPaused(false) }

func (l *link) setPaused(paused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.paused != paused {
		l.paused = paused
		l.moved.Broadcast()
	}
}

// isPaused reports whether reading has been stopped.
func (l *link) isPaused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paused
}

// leave says goodbye. The broker answers by closing the connection, after it has read everything that was written; until
// then what it sends is read and thrown away. Closing the connection instead, with something unread, would make the system
// send a reset, which overtakes the last acknowledgements.
func (l *link) leave() {
	_, _ = l.Write([]byte{typeDisconnect, 0})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.going = true
	l.moved.Broadcast()
}

// fail ends the link and returns the first reason for which it ended: that is what Read and Write return from then on.
func (l *link) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		l.moved.Broadcast()
		close(l.down)
		_ = l.socket.Close() // the reason is known
		_ = l.Conn.Close()
	}
	return l.err
}

// Close ends the link in the way in which the library ends connections.
func (l *link) Close() error {
	_ = l.fail(net.ErrClosed)
	return nil
}

// SetDeadline and the others do nothing: the link has deadlines of its own, and the library's would cut long messages off.
func (l *link) SetDeadline(time.Time) error      { return nil }
func (l *link) SetReadDeadline(time.Time) error  { return nil }
func (l *link) SetWriteDeadline(time.Time) error { return nil }

// appendAck adds the acknowledgement of a packet to b: PUBACK, or for QoS 2 PUBREC.
func appendAck(b []byte, p packet) []byte {
	switch p.qos {
	case 1:
		b = append(b, typePuback, 2)
	case 2:
		b = append(b, typePubrec, 2)
	default:
		return b
	}
	return binary.BigEndian.AppendUint16(b, p.id)
}
