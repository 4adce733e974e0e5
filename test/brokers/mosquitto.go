package brokers

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Mosquitto starts a mosquitto of its own for t. Its settings are those that
// at-least-once delivery needs and that flogate's documentation asks for: no
// limit on queued messages, and every change saved.
func Mosquitto(t testing.TB, opts ...Option) *Broker {
	t.Helper()
	program, err := find("mosquitto", "package mosquitto", "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
	if err != nil {
		t.Fatal(err)
	}
	s := apply(opts)
	return own(t, func(b *Broker, port int) error {
		b.name = "mosquitto"
		b.url = brokerURL(s.scheme("mqtt", "mqtts"), s.user, s.password, b.addr, "")
		lines := []string{
			"max_queued_messages 0",
			"set_tcp_nodelay true",
			fmt.Sprintf("allow_anonymous %t", s.user == ""),
		}
		if !s.volatile {
			lines = append(lines,
				"persistence true",
				"persistence_location "+b.dir+string(filepath.Separator),
				"autosave_on_changes true",
				"autosave_interval 1",
			)
		}
		if os.Geteuid() == 0 {
			// As root it would become a user that cannot read the test's folder.
			lines = append(lines, "user root")
		}
		if s.user != "" {
			entry, err := passwordEntry(s.user, s.password)
			if err != nil {
				return err
			}
			file, err := writeFile(b.dir, "passwords", []string{entry})
			if err != nil {
				return err
			}
			lines = append(lines, "password_file "+file)
		}
		lines = append(lines, fmt.Sprintf("listener %d 127.0.0.1", port))
		if a := s.authority; a != nil {
			cert, key := a.Server()
			lines = append(lines, "cafile "+a.CAFile(), "certfile "+cert, "keyfile "+key,
				fmt.Sprintf("require_certificate %t", s.mutual))
		}
		conf, err := writeFile(b.dir, "mosquitto.conf", append(lines, s.lines...))
		if err != nil {
			return err
		}
		b.command = func() *exec.Cmd { return exec.Command(program, "-c", conf) }
		b.ready = func() error { return dial(b.addr, nil) }
		return nil
	})
}

// passwordEntry is a line of mosquitto's password file: PBKDF2 with SHA-512.
func passwordEntry(user, password string) (string, error) {
	const rounds = 101 // what mosquitto_passwd uses
	salt := make([]byte, 12)
	_, _ = rand.Read(salt) // never fails
	hash, err := pbkdf2.Key(sha512.New, password, salt, rounds, sha512.Size)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s:$7$%d$%s$%s", user, rounds,
		base64.StdEncoding.EncodeToString(salt), base64.StdEncoding.EncodeToString(hash)), nil
}
