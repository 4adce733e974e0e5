package brokers

import (
	"os"
	"path/filepath"
	"strings"
)

// An Option changes how a broker is started.
type Option func(*settings)

type settings struct {
	lines     []string
	authority *Authority
	mutual    bool
	user      string
	password  string
	volatile  bool
}

func apply(opts []Option) settings {
	var s settings
	for _, o := range opts {
		o(&s)
	}
	return s
}

// Config adds lines to the broker's own configuration file, after the lines
// that this package writes. The syntax is the broker's.
func Config(lines ...string) Option {
	return func(s *settings) { s.lines = append(s.lines, lines...) }
}

// TLS makes the only listener a TLS listener with a certificate of a.
func TLS(a *Authority) Option {
	return func(s *settings) { s.authority = a }
}

// MutualTLS is TLS that admits only clients with a certificate of a.
func MutualTLS(a *Authority) Option {
	return func(s *settings) { s.authority, s.mutual = a, true }
}

// Password admits only this user; the broker's URL then has both.
func Password(user, password string) Option {
	return func(s *settings) { s.user, s.password = user, password }
}

// Volatile keeps nothing on disk (mosquitto) or no JetStream (NATS): for
// benchmarks whose subject is not the broker's disk. RabbitMQ ignores it.
func Volatile() Option {
	return func(s *settings) { s.volatile = true }
}

func (s settings) scheme(plain, secure string) string {
	if s.authority != nil {
		return secure
	}
	return plain
}

func writeFile(dir, name string, lines []string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}
