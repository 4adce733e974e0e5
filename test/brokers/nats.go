package brokers

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

const natsModule = "github.com/nats-io/nats-server/v2"

// NATS starts a nats-server of its own for t, of the version in go.mod, with
// JetStream stored in the broker's folder. The program is built once and kept
// in the user's cache folder.
func NATS(t testing.TB, opts ...Option) *Broker {
	t.Helper()
	program, err := natsServer()
	if err != nil {
		t.Fatal(err)
	}
	s := apply(opts)
	return own(t, func(b *Broker, _ int) error {
		b.name = "nats-server"
		b.url = brokerURL(s.scheme("nats", "tls"), s.user, s.password, b.addr, "")
		lines := []string{
			fmt.Sprintf("listen: %q", b.addr),
			`server_name: "test"`,
		}
		if !s.volatile {
			lines = append(lines, fmt.Sprintf("jetstream { store_dir: %q }", filepath.Join(b.dir, "store")))
		}
		if s.user != "" {
			lines = append(lines, fmt.Sprintf("authorization { user: %q, password: %q }", s.user, s.password))
		}
		if a := s.authority; a != nil {
			cert, key := a.Server()
			lines = append(lines, fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: %t }",
				cert, key, a.CAFile(), s.mutual))
		}
		conf, err := writeFile(b.dir, "nats.conf", append(lines, s.lines...))
		if err != nil {
			return err
		}
		b.command = func() *exec.Cmd { return exec.Command(program, "-c", conf) }
		b.ready = func() error {
			return dial(b.addr, func(conn net.Conn) error {
				line, err := bufio.NewReader(conn).ReadString('\n')
				if err != nil {
					return err
				}
				if !strings.HasPrefix(line, "INFO ") {
					return fmt.Errorf("greeted with %q", line)
				}
				return nil
			})
		}
		return nil
	})
}

// natsServer returns the path of the program, built if need be. Several test
// programs may build it at once; the file appears whole or not at all.
var natsServer = sync.OnceValues(func() (string, error) {
	var stderr strings.Builder
	list := exec.Command("go", "list", "-m", "-f", "{{.Version}}", natsModule)
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("find the version of %s: %w\n%s", natsModule, err, stderr.String())
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for nats-server: %w", err)
	}
	dir := filepath.Join(cache, "flogate-test")
	path := filepath.Join(dir, fmt.Sprintf("nats-server-%s-%s", strings.TrimSpace(string(out)), runtime.Version()))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(dir, "build")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	built := filepath.Join(fresh, "nats-server")
	if out, err := exec.Command("go", "build", "-o", built, natsModule).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nats-server: %w\n%s", err, out)
	}
	return path, os.Rename(built, path)
})
