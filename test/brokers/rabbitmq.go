package brokers

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Where a test program finds the RabbitMQ that somebody else has started for
// it: its URL, and a program that is rabbitmqctl for it.
const (
	envURL = "FLOGATE_TEST_AMQP_URL"
	envCtl = "FLOGATE_TEST_RABBITMQ_CTL"
)

const (
	rabbitStart = 2 * time.Minute // 10 s alone, far more beside other tests
	ctlTime     = time.Minute
)

// RabbitMQ gives t a fresh virtual host on the RabbitMQ that all tests share.
// The virtual host is left behind with what is in it: it ends with the server,
// and deleting it would cost each test half a second.
func RabbitMQ(t testing.TB) *Broker {
	t.Helper()
	where, err := sharedRabbit()
	if err != nil {
		t.Fatal(err)
	}
	vhost := "test-" + strings.ToLower(rand.Text()[:10])
	// One call instead of add_vhost and set_permissions: starting rabbitmqctl
	// is what takes the time.
	_, err = runCtl(where.ctl, "eval", fmt.Sprintf(
		`ok = rabbit_vhost:add(<<%q>>, <<"test">>),`+
			`ok = rabbit_auth_backend_internal:set_permissions(<<%q>>, <<%q>>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).`,
		vhost, rabbitUser, vhost))
	if err != nil {
		t.Fatalf("rabbitmq: new virtual host: %v", err)
	}
	return &Broker{
		t: t, name: "rabbitmq", addr: where.addr, ctl: where.ctl,
		url: brokerURL("amqp", rabbitUser, rabbitUser, where.addr, "/"+vhost),
	}
}

// OwnRabbitMQ starts a RabbitMQ for t alone: for tests that restart it, kill
// it, or raise alarms. It needs 10 to 20 seconds.
func OwnRabbitMQ(t testing.TB, opts ...Option) *Broker {
	t.Helper()
	s := apply(opts)
	return own(t, func(b *Broker, port int) error { return configureRabbit(b, port, s) })
}

// SharedRabbitMQ starts a RabbitMQ for many test programs. Started with env in
// their environment they use it in [RabbitMQ]. stop ends it and removes its
// folder.
func SharedRabbitMQ() (env []string, stop func() error, err error) {
	var dirs []string
	remove := func() error {
		var errs []error
		for _, dir := range dirs {
			errs = append(errs, os.RemoveAll(dir))
		}
		return errors.Join(errs...)
	}
	newDir := func() (string, error) {
		dir, err := os.MkdirTemp("", "flogate-rabbitmq")
		dirs = append(dirs, dir)
		return dir, err
	}
	b, err := open(newDir, func(b *Broker, port int) error { return configureRabbit(b, port, settings{}) })
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	stop = func() error { return errors.Join(b.close(), remove()) }
	return []string{envURL + "=" + b.url, envCtl + "=" + b.ctl}, stop, nil
}

// rabbitUser is name and password of the user that every RabbitMQ has.
const rabbitUser = "guest"

// configureRabbit prepares everything in the broker's own folder, so that it
// runs under any user and beside any other RabbitMQ.
func configureRabbit(b *Broker, port int, s settings) error {
	const hint = "package rabbitmq-server"
	b.name, b.limit = "rabbitmq", rabbitStart
	// Debian's programs of these names in /usr/sbin change the user; those
	// behind them do not.
	const folder = "/usr/lib/rabbitmq/bin"
	server, err := find("rabbitmq-server", hint, folder)
	if err != nil {
		return err
	}
	ctl, err := find("rabbitmqctl", hint, folder)
	if err != nil {
		return err
	}
	epmd, err := find("epmd", "package erlang-base")
	if err != nil {
		return err
	}
	distPort, err := freePort()
	if err != nil {
		return err
	}
	epmdPort, err := freePort()
	if err != nil {
		return err
	}

	user, password := rabbitUser, rabbitUser
	if s.user != "" {
		user, password = s.user, s.password
	}
	b.url = brokerURL(s.scheme("amqp", "amqps"), user, password, b.addr, "")
	lines := []string{
		"default_user = " + user,
		"default_pass = " + password,
		"log.console = true",
		"log.console.level = warning",
		"log.file = false",
	}
	if a := s.authority; a != nil {
		cert, key := a.Server()
		lines = append(lines, "listeners.tcp = none", "listeners.ssl.1 = "+b.addr,
			"ssl_options.cacertfile = "+a.CAFile(), "ssl_options.certfile = "+cert, "ssl_options.keyfile = "+key,
			"ssl_options.verify = "+map[bool]string{true: "verify_peer", false: "verify_none"}[s.mutual],
			"ssl_options.fail_if_no_peer_cert = "+strconv.FormatBool(s.mutual))
	} else {
		lines = append(lines, "listeners.tcp.1 = "+b.addr)
	}
	conf, err := writeFile(b.dir, "rabbitmq.conf", append(lines, s.lines...))
	if err != nil {
		return err
	}
	plugins, err := writeFile(b.dir, "enabled_plugins", []string{"[]."})
	if err != nil {
		return err
	}
	noEnv, err := writeFile(b.dir, "rabbitmq-env.conf", nil)
	if err != nil {
		return err
	}
	own := []string{
		"HOME=" + b.dir, // has the Erlang cookie
		"RABBITMQ_NODENAME=flogate" + strconv.Itoa(port) + "@localhost",
		"RABBITMQ_CONF_ENV_FILE=" + noEnv,
		"RABBITMQ_CONFIG_FILE=" + conf,
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + filepath.Join(b.dir, "advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + plugins,
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(b.dir, "data"),
		"RABBITMQ_LOG_BASE=" + filepath.Join(b.dir, "log"),
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(distPort),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		// rabbitmqctl listens too; by default on one of eleven fixed ports.
		"RABBITMQ_CTL_DIST_PORT_MIN=0",
		"RABBITMQ_CTL_DIST_PORT_MAX=0",
		"ERL_EPMD_PORT=" + strconv.Itoa(epmdPort),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_CRASH_DUMP=" + filepath.Join(b.dir, "erl_crash.dump"),
		// Makes the script become the server instead of its parent.
		"RUNNING_UNDER_SYSTEMD=true",
	}
	if b.ctl, err = writeCtl(b.dir, ctl, own); err != nil {
		return err
	}

	// The node would start this as a daemon that outlives it.
	names := exec.Command(epmd, "-port", strconv.Itoa(epmdPort), "-address", "127.0.0.1")
	p, err := launch(names)
	if err != nil {
		return err
	}
	b.servants = append(b.servants, p)

	b.command = func() *exec.Cmd {
		cmd := exec.Command(server)
		cmd.Env = append(foreignEnv(), own...)
		return cmd
	}
	b.ready = func() error {
		greet := greetAMQP
		if s.authority != nil {
			greet = nil
		}
		if err := dial(b.addr, greet); err != nil {
			return err
		}
		// The listener is open before the boot is over. A node that is killed
		// in between comes back without the messages that it confirmed then.
		_, err := runCtl(b.ctl, "await_startup")
		return err
	}
	return nil
}

// greetAMQP succeeds when the server answers the protocol header with a method.
func greetAMQP(conn net.Conn) error {
	if _, err := conn.Write([]byte{'A', 'M', 'Q', 'P', 0, 0, 9, 1}); err != nil {
		return err
	}
	var kind [1]byte
	if _, err := io.ReadFull(conn, kind[:]); err != nil {
		return err
	}
	const method = 1
	if kind[0] != method {
		return fmt.Errorf("greeted with frame type %d", kind[0])
	}
	return nil
}

// foreignEnv is this process's environment without what another RabbitMQ may
// have left in it.
func foreignEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "RABBITMQ_") && !strings.HasPrefix(kv, "NOTIFY_SOCKET=") {
			env = append(env, kv)
		}
	}
	return env
}

// writeCtl writes a program that is rabbitmqctl for the server with this
// environment.
func writeCtl(dir, ctl string, env []string) (string, error) {
	lines := []string{"#!/bin/sh"}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		lines = append(lines, "export "+name+"="+shellQuote(value))
	}
	path, err := writeFile(dir, "ctl", append(lines, "exec "+shellQuote(ctl)+` "$@"`))
	if err != nil {
		return "", err
	}
	return path, os.Chmod(path, 0o700)
}

func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func runCtl(ctl string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ctlTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, ctl, append([]string{"--quiet"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// rabbit is a running server that others own.
type rabbit struct {
	addr, ctl string
	// stdin ends the server when it is closed, which the kernel does when this
	// program ends, however it ends. Kept here so that it is not collected.
	stdin io.Closer
}

// sharedRabbit finds the server that the environment names, or starts one that
// ends with this program. Test programs have no end to hook into, so the state
// is the package's.
var sharedRabbit = sync.OnceValues(func() (*rabbit, error) {
	rawURL, ctl := os.Getenv(envURL), os.Getenv(envCtl)
	if rawURL != "" && ctl != "" {
		return newRabbit(rawURL, ctl, nil)
	}
	if rawURL != "" || ctl != "" {
		return nil, fmt.Errorf("%s and %s must be set together, or neither", envURL, envCtl)
	}
	// No goroutine waits for this child: one would look like a leak in every
	// package that looks for leaks.
	cmd := exec.Command("go", "run", "github.com/flogate/flogate/test/brokers/run", "--",
		"sh", "-c", `echo "$`+envURL+` $`+envCtl+`"; cat >/dev/null`)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	// Not the test's own stderr: `go test` waits until everybody has closed it.
	log, err := os.CreateTemp("", "flogate-rabbitmq-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	defer os.Remove(log.Name())
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the shared RabbitMQ: %w", err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	rawURL, ctl, ok := strings.Cut(strings.TrimSpace(line), " ")
	if err != nil || !ok {
		return nil, fmt.Errorf("start the shared RabbitMQ: %w\n%s", errors.Join(err, stdin.Close()), tail(log.Name()))
	}
	return newRabbit(rawURL, ctl, stdin)
})

func newRabbit(rawURL, ctl string, stdin io.Closer) (*rabbit, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", envURL, err)
	}
	return &rabbit{addr: u.Host, ctl: ctl, stdin: stdin}, nil
}
