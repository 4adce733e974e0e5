package filetransport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/flogate/flogate/core/transport"
)

// publisher appends to files. Publish writes and waits for the disk, so that what it has returned from is confirmed; the
// Outbox makes ranges of it.
type publisher struct {
	conn    *conn
	address string
	outbox  *transport.Outbox
}

// maxUnconfirmed bounds what Publish writes ahead of Confirms.
const maxUnconfirmed = 1024

// Publish implements [transport.Conn].
func (c *conn) Publish(ctx context.Context, sink transport.Sink) (transport.Publisher, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := noOptions(sink.Options); err != nil {
		return nil, err
	}
	p := &publisher{conn: c, address: sink.Address, outbox: transport.NewOutbox(maxUnconfirmed)}
	if err := c.add(p); err != nil {
		return nil, err
	}
	if sink.Address != "" {
		// An address that cannot be used is better known now than at the first message.
		if err := c.append(sink.Address, nil); err != nil {
			c.remove(p)
			return nil, err
		}
	}
	return p, nil
}

// Publish implements [transport.Publisher].
func (p *publisher) Publish(ctx context.Context, msgs []transport.Message) error {
	// Messages that go to the same file one after the other share one write and one wait for the disk.
	var first, last uint64
	var address string
	var lines []byte
	flush := func() error {
		if first == 0 {
			return nil
		}
		err := p.conn.append(address, lines)
		switch {
		case transport.IsPermanent(err):
			p.outbox.Done(first, last, err)
		case err != nil:
			p.end(err)
			return transport.Closed(err)
		default:
			p.outbox.Done(first, last, nil)
		}
		first, lines = 0, nil
		return nil
	}
	for i := range msgs {
		to := p.address
		if to == "" {
			to = msgs[i].Address
		}
		if to != address || len(lines) > 1<<20 {
			if err := flush(); err != nil {
				return err
			}
		}
		n, err := p.outbox.Reserve(ctx)
		if err != nil {
			return errors.Join(err, flush())
		}
		line, err := p.conn.format.line(&msgs[i])
		if err != nil {
			p.outbox.Done(n, n, err)
			continue
		}
		if first == 0 {
			first, address = n, to
		}
		last = n
		lines = append(append(lines, line...), '\n')
	}
	return flush()
}

// Confirms implements [transport.Publisher].
func (p *publisher) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return p.outbox.Confirms(ctx)
}

// Close implements [transport.Publisher].
func (p *publisher) Close(context.Context) error {
	p.conn.remove(p)
	p.end(transport.ErrClosed)
	return nil
}

func (p *publisher) end(reason error) { p.outbox.Fail(reason) }

// append appends lines to a file and returns when they are on the disk. An error that is Permanent means that nothing was
// written.
func (c *conn) append(address string, lines []byte) error {
	if !filepath.IsLocal(address) || hidden(address) {
		return transport.Permanentf("%q is not the name of a file in the folder", address)
	}
	f, err := c.root.OpenFile(address, os.O_RDWR|os.O_CREATE, 0o644)
	switch {
	case errors.Is(err, os.ErrClosed):
		return transport.Closed(err)
	case err != nil:
		return transport.Permanent(err)
	}
	defer func() { _ = f.Close() }()
	// Others may append too; the lock is gone with the file.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", address, err)
	}
	end, err := endOfLines(f)
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	if len(lines) == 0 {
		return nil
	}
	if _, err := f.WriteAt(lines, end); err != nil {
		_ = f.Truncate(end) // a full disk leaves half a line
		return fmt.Errorf("%s: %w", address, err)
	}
	return f.Sync()
}

// endOfLines returns where the last whole line ends, and cuts off what was left of another by somebody who was killed.
func endOfLines(f *os.File) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	const step = 64 << 10
	buf := make([]byte, step)
	for end := size; end > 0; {
		from := max(0, end-step)
		b := buf[:end-from]
		if _, err := f.ReadAt(b, from); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			end = from + int64(i) + 1
			if end < size {
				return end, f.Truncate(end)
			}
			return end, nil
		}
		end = from
	}
	return 0, f.Truncate(0)
}
