package filetransport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/flogate/flogate/core/transport"
)

const (
	// stateDir is where subscriptions remember.
	stateDir = ".flogate"
	// look is how often a file is looked at for more.
	look = 50 * time.Millisecond
)

// subscription follows one file. A goroutine reads lines into the Inbox, which knows all about credit and settlements.
type subscription struct {
	conn    *conn
	address string
	state   string // the file of what it remembers
	window  int64
	inbox   *transport.Inbox[line]
	stop    context.CancelFunc
	task    sync.WaitGroup

	mu   sync.Mutex
	done progress
}

// line is where a message stands in the file.
type line struct {
	from, to int64
	msg      transport.Message
}

// progress is what a subscription remembers: everything before Offset is settled for good, and so are the lines that begin
// and end where Done says.
type progress struct {
	Offset int64           `json:"offset"`
	Done   map[int64]int64 `json:"done,omitempty"`
}

// note notes that a line is settled for good.
func (p *progress) note(from, to int64) {
	p.Done[from] = to
	for {
		to, ok := p.Done[p.Offset]
		if !ok {
			return
		}
		delete(p.Done, p.Offset)
		p.Offset = to
	}
}

// Subscribe implements [transport.Conn].
func (c *conn) Subscribe(ctx context.Context, src transport.Source) (transport.Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !filepath.IsLocal(src.Address) || hidden(src.Address) {
		return nil, transport.Permanentf("%q is not the name of a file in the folder", src.Address)
	}
	if err := noOptions(src.Options); err != nil {
		return nil, err
	}
	s := &subscription{
		conn: c, address: src.Address, window: max(1, src.Window.Messages), inbox: transport.NewInbox[line](false),
		state: filepath.Join(stateDir, url.PathEscape(c.name+" "+src.Name+" "+src.Address)+".json"),
		done:  progress{Done: map[int64]int64{}},
	}
	if err := s.load(); errors.Is(err, os.ErrClosed) {
		return nil, transport.Closed(err)
	} else if err != nil {
		return nil, err
	}
	if err := c.add(s); err != nil {
		return nil, err
	}
	following, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.task.Go(func() { s.inbox.Fail(s.follow(following)) })
	return s, nil
}

func (s *subscription) load() error {
	b, err := s.conn.root.ReadFile(s.state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &s.done); err != nil {
		return transport.Permanent(fmt.Errorf("%s is damaged, remove it to begin anew: %w", s.state, err))
	}
	if s.done.Done == nil {
		s.done.Done = map[int64]int64{}
	}
	return nil
}

// save writes down what is settled. Losing it leads to messages that come again, never to a loss, so nobody waits for the
// disk; but half of it must not be found.
func (s *subscription) save() error {
	b, err := json.Marshal(s.done)
	if err != nil {
		return err
	}
	if err := s.conn.root.Mkdir(stateDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.conn.root.WriteFile(s.state+".new", b, 0o644); err != nil {
		return err
	}
	return s.conn.root.Rename(s.state+".new", s.state)
}

// follow reads lines until ctx ends or the file cannot be read, and returns why.
func (s *subscription) follow(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	s.mu.Lock()
	at := s.done.Offset
	s.mu.Unlock()
	for {
		next, err := s.read(at)
		if err != nil {
			return fmt.Errorf("%s: %w", s.address, err)
		}
		if next > at {
			at = next
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return transport.ErrClosed
		}
	}
}

// read puts lines that begin at an offset into the inbox, if it has room, and returns where the next begins.
func (s *subscription) read(at int64) (int64, error) {
	if s.inbox.Waiting().Messages >= s.window {
		return at, nil
	}
	f, err := s.conn.root.Open(s.address)
	if errors.Is(err, fs.ErrNotExist) {
		return at, nil
	}
	if err != nil {
		return at, err
	}
	defer func() { _ = f.Close() }()
	for buf := make([]byte, 64<<10); ; buf = make([]byte, 2*len(buf)) {
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return at, err
		}
		end := bytes.LastIndexByte(buf[:n], '\n')
		switch {
		case end >= 0:
			for l := range bytes.Lines(buf[:end+1]) {
				s.put(line{from: at, to: at + int64(len(l))}, l[:len(l)-1])
				at += int64(len(l))
			}
			return at, nil
		case n < len(buf):
			return at, nil // the line is not whole yet
		}
	}
}

// put hands a line on, unless it is settled.
func (s *subscription) put(l line, text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, done := s.done.Done[l.from]; done {
		return
	}
	msg, err := s.conn.format.message(text)
	if err != nil {
		s.done.note(l.from, l.to) // no message, or not any more
		return
	}
	if msg.Address == "" {
		msg.Address = s.address
	}
	msg.SourceID = strconv.FormatInt(l.from, 10)
	l.msg = msg
	s.inbox.Put(msg, l)
}

// Receive implements [transport.Subscription].
func (s *subscription) Receive(ctx context.Context) ([]transport.Delivery, error) {
	return s.inbox.Receive(ctx)
}

// Grant implements [transport.Subscription].
func (s *subscription) Grant(c transport.Credit) error { return s.inbox.Grant(c) }

// Settle implements [transport.Subscription].
func (s *subscription) Settle(_ context.Context, settlements []transport.Settlement) error {
	settled, err := s.inbox.Settle(settlements)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range settled {
		if d.Outcome == transport.Release {
			again := d.Token
			again.msg.Redelivered = true
			s.inbox.Put(again.msg, again)
			continue
		}
		s.done.note(d.Token.from, d.Token.to)
	}
	if len(settled) == 0 {
		return err
	}
	return errors.Join(err, s.save())
}

// Close implements [transport.Subscription].
func (s *subscription) Close(context.Context) error {
	s.conn.remove(s)
	s.end(transport.ErrClosed)
	return nil
}

// Remove implements [transport.Subscription]. The file is somebody else's.
func (s *subscription) Remove(ctx context.Context) error {
	err := s.Close(ctx)
	if e := s.conn.root.Remove(s.state); e != nil && !errors.Is(e, fs.ErrNotExist) && !errors.Is(e, os.ErrClosed) {
		err = e
	}
	return err
}

func (s *subscription) end(reason error) {
	s.inbox.Fail(reason)
	s.stop()
	s.task.Wait()
}
