package brokers

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Broker is a broker process that one test owns, or (from [RabbitMQ]) one
// virtual host of a server that all tests share. Methods fail the test on
// errors; they are for the test's own goroutine and not for concurrent use,
// except URL, Addr and Through.
type Broker struct {
	t       testing.TB
	name    string
	url     string
	addr    string
	dir     string
	command func() *exec.Cmd
	ready   func() error
	limit   time.Duration // how long a start may take
	proc    *process      // nil when shared
	ctl     string        // rabbitmqctl for this server, or empty
	// servants are other processes that the broker needs; they outlive its
	// restarts.
	servants []*process
}

// URL is where clients connect, with user and password where there are any:
// mqtt://, mqtts://, amqp://, amqps://, nats:// or tls://. It stays the same
// over restarts.
func (b *Broker) URL() string { return b.url }

// Addr is the host and port of URL.
func (b *Broker) Addr() string { return b.addr }

// Dir is the folder with the broker's configuration, data and log; empty for
// a shared server.
func (b *Broker) Dir() string { return b.dir }

// PID is the broker's process id; 0 for a shared server.
func (b *Broker) PID() int {
	if b.proc == nil {
		return 0
	}
	return b.proc.pid
}

// Log is the end of what the broker has printed.
func (b *Broker) Log() string {
	if b.dir == "" {
		return ""
	}
	return tail(b.logPath())
}

// Start starts the broker again after Stop or Kill, on the same port with the
// same data, and waits until it accepts clients.
func (b *Broker) Start() {
	b.t.Helper()
	b.mustOwn()
	if b.proc.running() {
		b.t.Fatalf("%s: started twice", b.name)
	}
	if err := b.start(); err != nil {
		b.t.Fatal(err)
	}
}

// Stop ends the broker with SIGTERM and waits until it has ended.
func (b *Broker) Stop() {
	b.t.Helper()
	b.mustOwn()
	if err := b.proc.stop(); err != nil {
		b.t.Fatalf("%s: %v", b.name, err)
	}
}

// Kill ends the broker with SIGKILL and waits until it has ended.
func (b *Broker) Kill() {
	b.t.Helper()
	b.mustOwn()
	if err := b.proc.kill(); err != nil {
		b.t.Fatalf("%s: %v", b.name, err)
	}
}

// Restart is Stop and Start.
func (b *Broker) Restart() {
	b.t.Helper()
	b.Stop()
	b.Start()
}

// Freeze stops the broker from running (SIGSTOP): its connections stay open
// and are silent.
func (b *Broker) Freeze() {
	b.t.Helper()
	b.mustOwn()
	if err := b.proc.signal(syscall.SIGSTOP); err != nil {
		b.t.Fatalf("%s: %v", b.name, err)
	}
}

// Thaw lets a frozen broker run again (SIGCONT).
func (b *Broker) Thaw() {
	b.t.Helper()
	b.mustOwn()
	if err := b.proc.signal(syscall.SIGCONT); err != nil {
		b.t.Fatalf("%s: %v", b.name, err)
	}
}

// Ctl runs rabbitmqctl on the broker's server and returns what it printed.
// It needs about half a second.
func (b *Broker) Ctl(args ...string) string {
	b.t.Helper()
	if b.ctl == "" {
		b.t.Fatalf("%s: only RabbitMQ has a control program", b.name)
	}
	out, err := runCtl(b.ctl, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *Broker) mustOwn() {
	b.t.Helper()
	if b.proc == nil {
		b.t.Fatalf("%s: other tests use this server too: take OwnRabbitMQ", b.name)
	}
}

func (b *Broker) logPath() string { return filepath.Join(b.dir, "out.log") }

func (b *Broker) start() error {
	out, err := os.OpenFile(b.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", b.name, err)
	}
	defer out.Close() // the child has its own
	cmd := b.command()
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, out, out
	p, err := launch(cmd)
	if err != nil {
		return fmt.Errorf("%s: %w", b.name, err)
	}
	b.proc = p
	if err := p.await(b.limit, b.ready); err != nil {
		_ = p.kill() // the first error is the one to tell
		return fmt.Errorf("%s: %w\n%s", b.name, err, b.Log())
	}
	return nil
}

// open starts the broker that configure describes for a port. Between the
// probing of a port and its use another process can take it, so a few ports are
// tried.
func open(newDir func() (string, error), configure func(b *Broker, port int) error) (*Broker, error) {
	var last error
	for range 3 {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		b := &Broker{addr: loopback(port), limit: 30 * time.Second}
		if b.dir, err = newDir(); err != nil {
			return nil, err
		}
		if err := configure(b, port); err != nil {
			return nil, errors.Join(err, b.close())
		}
		if last = b.start(); last == nil {
			return b, nil
		}
		last = errors.Join(last, b.close())
	}
	return nil, last
}

// close kills all processes of the broker.
func (b *Broker) close() error {
	var errs []error
	if b.proc != nil {
		errs = append(errs, b.proc.kill())
	}
	for _, p := range b.servants {
		errs = append(errs, p.kill())
	}
	return errors.Join(errs...)
}

// own is open for a broker that ends with the test.
func own(t testing.TB, configure func(b *Broker, port int) error) *Broker {
	t.Helper()
	b, err := open(func() (string, error) { return t.TempDir(), nil }, configure)
	if err != nil {
		t.Fatal(err)
	}
	b.t = t
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Errorf("%s: %v", b.name, err)
		}
		if t.Failed() {
			t.Logf("%s printed:\n%s", b.name, b.Log())
		}
	})
	return b
}

// dial connects to addr and lets talk, if any, see whether it is ready.
func dial(addr string, talk func(net.Conn) error) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if talk == nil {
		return nil
	}
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	return talk(conn)
}

func brokerURL(scheme, user, password, addr, path string) string {
	u := url.URL{Scheme: scheme, Host: addr, Path: path}
	if user != "" {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}
