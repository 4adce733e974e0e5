package embedded

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

const bound = 20 * time.Second

const slowStore = "EMBEDDED_TEST_SLOW_STORE"

// TestMain is also the program that [Child] starts, and a gateway to kill.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "broker":
			os.Exit(brokerCommand(os.Args[2:]))
		case "gateway":
			os.Exit(gatewayCommand(os.Args[2:]))
		}
	}
	goleak.VerifyTestMain(m)
}

func options(name string, args []string) (o Options) {
	f := flag.NewFlagSet(name, flag.ExitOnError)
	f.StringVar(&o.NATS, "nats", "", "")
	f.StringVar(&o.MQTT, "mqtt", "", "")
	f.StringVar(&o.DataDir, "data", "", "")
	_ = f.Parse(args) // it exits on errors
	return o
}

func brokerCommand(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	// A store that takes its time is recovered when this file is there.
	for recovered := os.Getenv(slowStore); recovered != ""; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(recovered); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err := Serve(ctx, options("broker", args), os.Stdout, log); err != nil {
		return 1
	}
	return 0
}

func gatewayCommand(args []string) int {
	o := options("gateway", args)
	c := Child{
		NATS: o.NATS, MQTT: o.MQTT, DataDir: o.DataDir, Log: testLog(),
		Ready: func(a Addresses) { fmt.Println("READY", a.NATS) },
	}
	if err := c.Run(context.Background()); err != nil {
		return 1
	}
	return 0
}

// testLog drops everything: the server may still write when the test has ended.
func testLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// background runs run until stop is called, which returns its error.
func background(t *testing.T, run func(ctx context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		err = run(ctx)
	}()
	stop = func() error {
		cancel()
		<-ended
		return err
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

func start(t *testing.T, o Options) (a Addresses, stop func() error) {
	t.Helper()
	ready := make(chan Addresses, 1)
	o.Ready = func(a Addresses) { ready <- a }
	failed := make(chan error, 1)
	stop = background(t, func(ctx context.Context) error {
		err := Run(ctx, o, testLog())
		failed <- err
		return err
	})
	select {
	case a = <-ready:
	case err := <-failed:
		t.Fatalf("not started: %v", err)
	case <-time.After(bound):
		t.Fatal("not ready in time")
	}
	return a, stop
}

func anyPort(t *testing.T) Options {
	t.Helper()
	return Options{NATS: "127.0.0.1:0", MQTT: "127.0.0.1:0", DataDir: t.TempDir()}
}

func connect(t *testing.T, addr, id string, clean bool, got mqtt.MessageHandler) mqtt.Client {
	t.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(id).
		SetCleanSession(clean).SetAutoReconnect(false).SetDefaultPublishHandler(got))
	done(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func done(t *testing.T, token mqtt.Token) {
	t.Helper()
	if !token.WaitTimeout(bound) {
		t.Fatal("no answer from the broker")
	}
	if err := token.Error(); err != nil {
		t.Fatal(err)
	}
}

func collect(n int) (mqtt.MessageHandler, <-chan string) {
	got := make(chan string, n)
	return func(_ mqtt.Client, m mqtt.Message) { got <- string(m.Payload()) }, got
}

func next(t *testing.T, got <-chan string) string {
	t.Helper()
	select {
	case m := <-got:
		return m
	case <-time.After(bound):
		t.Fatal("no message")
		return ""
	}
}

// rejected runs a broker that must not start.
func rejected(t *testing.T, o Options) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	o.Ready = func(Addresses) { t.Error("it started") }
	err := Run(ctx, o, testLog())
	if err == nil {
		t.Fatal("ended without an error")
	}
	return err
}

func TestSecondInstanceRefused(t *testing.T) {
	o := anyPort(t)
	start(t, o)
	err := rejected(t, o)
	inUse, ok := errors.AsType[*InUseError](err)
	if !ok || inUse.PID != os.Getpid() || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", os.Getpid())) {
		t.Fatal(err)
	}
}

func TestUneventfulStartWarnsOfNothing(t *testing.T) {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	o := anyPort(t)
	o.Ready = func(Addresses) { cancel() }
	if err := Run(ctx, o, slog.New(slog.NewTextHandler(&out, nil))); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Fatal("not ready in time")
	}
	if out.Len() > 0 {
		t.Fatalf("logged: %s", out.String())
	}
}

func TestStoppedInstanceLeavesFolderAndPorts(t *testing.T) {
	o := anyPort(t)
	a, stop := start(t, o)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	o.NATS, o.MQTT = a.NATS, a.MQTT
	if again, _ := start(t, o); again != a {
		t.Fatalf("listens on %+v, asked for %+v", again, a)
	}
}

func TestPortInUseMessage(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, listener := range []string{"nats", "mqtt"} {
		o := anyPort(t)
		if listener == "nats" {
			o.NATS = l.Addr().String()
		} else {
			o.MQTT = l.Addr().String()
		}
		err := rejected(t, o)
		taken, ok := errors.AsType[*PortTakenError](err)
		if !ok || taken.Listener != listener || taken.PID != os.Getpid() {
			t.Fatalf("%+v", err)
		}
		comm, err2 := os.ReadFile("/proc/self/comm")
		if err2 != nil {
			t.Fatal(err2)
		}
		want := fmt.Sprintf("embedded broker: the %s address %s is taken by process %d (%s)",
			listener, l.Addr(), os.Getpid(), strings.TrimSpace(string(comm)))
		if err.Error() != want {
			t.Fatalf("got  %s\nwant %s", err, want)
		}
	}
}

func TestReachableAddressNeedsAPassword(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0"} {
		o := anyPort(t)
		o.MQTT = addr
		if err := rejected(t, o); !strings.Contains(err.Error(), "can be reached from other machines") {
			t.Fatalf("%s: %v", addr, err)
		}
	}
	o := anyPort(t)
	o.NATS, o.User, o.Password = "0.0.0.0:0", "ann", "secret"
	a, _ := start(t, o)
	_, port, err := net.SplitHostPort(a.NATS)
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := nats.Connect("nats://127.0.0.1:" + port); err == nil {
		conn.Close()
		t.Fatal("admitted without a password")
	}
	conn, err := nats.Connect("nats://127.0.0.1:"+port, nats.UserInfo("ann", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + a.MQTT).SetConnectRetry(false))
	token := c.Connect()
	if token.WaitTimeout(bound); token.Error() == nil {
		c.Disconnect(0)
		t.Fatal("MQTT admitted without a password")
	}
}

func TestBadAddressIsAnError(t *testing.T) {
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1"} {
		o := anyPort(t)
		o.NATS = addr
		if err := rejected(t, o); !strings.Contains(err.Error(), "nats address") {
			t.Fatalf("%q: %v", addr, err)
		}
	}
}

func TestBrokenStoreIsAnErrorAndNotTheEndOfTheProcess(t *testing.T) {
	o := anyPort(t)
	if err := os.WriteFile(filepath.Join(o.DataDir, "nats"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rejected(t, o); !strings.Contains(err.Error(), "JetStream") {
		t.Fatal(err)
	}
	if !holderIsGone(o.DataDir) {
		t.Fatal("the folder is still locked")
	}
}

func TestFirstMessageUnder1s(t *testing.T) {
	best := time.Hour
	for range 3 { // the machine may be busy with something else once
		before := time.Now()
		a, stop := start(t, anyPort(t))
		handler, got := collect(1)
		c := connect(t, a.MQTT, "first", true, handler)
		done(t, c.Subscribe("a", 1, nil))
		done(t, c.Publish("a", 1, false, "x"))
		next(t, got)
		best = min(best, time.Since(before))
		c.Disconnect(0)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("best of three: %s", best)
	if best > time.Second {
		t.Fatalf("first message after %s", best)
	}
}

func TestBodyOf16MiBPassesWithWhatIsAroundIt(t *testing.T) {
	a, _ := start(t, anyPort(t))
	body := make([]byte, 16<<20)
	topic := strings.Repeat("long/", 200) + "topic"
	handler, got := collect(1)
	c := connect(t, a.MQTT, "large", true, handler)
	done(t, c.Subscribe(topic, 1, nil))
	done(t, c.Publish(topic, 1, false, body))
	if n := len(next(t, got)); n != len(body) {
		t.Errorf("%d bytes came over MQTT", n)
	}

	conn, err := nats.Connect("nats://" + a.NATS)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sub, err := conn.SubscribeSync("large")
	if err != nil {
		t.Fatal(err)
	}
	header := nats.Header{"h": {strings.Repeat("x", 100<<10)}}
	if err := conn.PublishMsg(&nats.Msg{Subject: "large", Header: header, Data: body}); err != nil {
		t.Fatal(err)
	}
	msg, err := sub.NextMsg(bound)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(msg.Data); n != len(body) {
		t.Errorf("%d bytes came over NATS", n)
	}
}

// childProcess is a broker in a process that the test kills.
func childProcess(t *testing.T, o Options) (cmd *exec.Cmd, a Addresses) {
	t.Helper()
	cmd = exec.Command(os.Args[0], "gateway", "--nats", o.NATS, "--mqtt", o.MQTT, "--data", o.DataDir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "READY %s", &a.NATS); err == nil {
			return cmd, a
		}
	}
	t.Fatal("the child did not get ready")
	return nil, a
}

// eventually polls until ok, within bound.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(bound); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", bound, what)
		}
	}
}

// holderIsGone says whether somebody else could have the folder.
func holderIsGone(dir string) bool {
	unlock, err := lock(dir)
	if err == nil {
		unlock()
	}
	return err == nil
}

func TestChildEndsWithKilledGateway(t *testing.T) {
	o := anyPort(t)
	gateway, _ := childProcess(t, o)
	if holderIsGone(o.DataDir) {
		t.Fatal("no broker has the folder")
	}
	if err := gateway.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broker has ended", func() bool { return holderIsGone(o.DataDir) })
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write never fails.
func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// life is a running Child and what it reported.
type life struct {
	mu      sync.Mutex
	changes []Status
	log     syncBuffer
	ready   chan Addresses
	stop    func() error
}

func startChild(t *testing.T, o Options) *life {
	t.Helper()
	l := &life{ready: make(chan Addresses, 100)}
	c := Child{
		Program: os.Args[0], NATS: o.NATS, MQTT: o.MQTT, DataDir: o.DataDir, Log: slog.New(slog.NewTextHandler(&l.log, nil)),
		Ready: func(a Addresses) { l.ready <- a },
		slow:  10 * time.Millisecond,
		Changed: func(s Status) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.changes = append(l.changes, s)
		},
	}
	l.stop = background(t, c.Run)
	return l
}

func (l *life) wait(t *testing.T) Addresses {
	t.Helper()
	select {
	case a := <-l.ready:
		return a
	case <-time.After(bound):
		t.Fatal("the child did not get ready")
		return Addresses{}
	}
}

func (l *life) last() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.changes) == 0 {
		return Status{}
	}
	return l.changes[len(l.changes)-1]
}

// holder is the process id in the lock file.
func holder(t *testing.T, dir string) int {
	t.Helper()
	_, err := lock(dir)
	inUse, ok := errors.AsType[*InUseError](err)
	if !ok || inUse.PID == 0 {
		t.Fatalf("nobody has the folder: %v", err)
	}
	return inUse.PID
}

func TestKilledBrokerComesBackWithEverythingAcknowledged(t *testing.T) {
	o := anyPort(t)
	l := startChild(t, o)
	a := l.wait(t)

	handler, _ := collect(0)
	sub := connect(t, a.MQTT, "sub", false, handler)
	done(t, sub.Subscribe("queue", 1, nil))
	sub.Disconnect(0)

	pub := connect(t, a.MQTT, "pub", true, handler)
	const messages = 200
	for i := range messages {
		done(t, pub.Publish("queue", 1, false, fmt.Sprint(i)))
	}
	done(t, pub.Publish("lamp", 1, true, "red"))
	conn, err := nats.Connect("nats://"+a.NATS, nats.NoReconnect())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "s", []byte("x")); err != nil {
		t.Fatal(err)
	}

	if err := syscall.Kill(holder(t, o.DataDir), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a = l.wait(t) // supervised
	if s := l.last(); s.Restarts != 1 || s.State != Ready || s.Err != nil {
		t.Fatalf("status: %+v", s)
	}

	handler, got := collect(2 * messages)
	connect(t, a.MQTT, "sub", false, handler)
	for i := range messages {
		if m := next(t, got); m != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, m)
		}
	}
	handler, got = collect(1)
	done(t, connect(t, a.MQTT, "lamp", true, handler).Subscribe("lamp", 1, nil))
	if m := next(t, got); m != "red" {
		t.Fatalf("retained message is %q", m)
	}
	conn, err = nats.Connect("nats://"+a.NATS, nats.NoReconnect())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if js, err = jetstream.New(conn); err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, "S")
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 1 {
		t.Fatalf("%d messages in the stream", n)
	}
}

func TestChildIsReadyWhenItListensAndStartsForAsLongAsItTakes(t *testing.T) {
	recovered := filepath.Join(t.TempDir(), "recovered")
	t.Setenv(slowStore, recovered)
	o := anyPort(t)
	l := startChild(t, o)
	eventually(t, "it is said that the start takes long", func() bool {
		return strings.Contains(l.log.String(), "the broker is still starting")
	})
	starting := l.last()
	if starting.State != Starting || starting.PID == 0 || starting.Restarts != 0 || starting.Since.IsZero() {
		t.Errorf("while it starts: %+v", starting)
	}
	if err := os.WriteFile(recovered, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.wait(t)
	if s := l.last(); s.State != Ready || s.PID != starting.PID || s.PID != holder(t, o.DataDir) {
		t.Errorf("it started as %+v and is %+v", starting, s)
	}
}

func TestChildStopsInOrder(t *testing.T) {
	o := anyPort(t)
	l := startChild(t, o)
	l.wait(t)
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	if !holderIsGone(o.DataDir) {
		t.Fatal("the broker still has the folder")
	}
}

func TestChildSaysWhyItCannotStart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := anyPort(t)
	o.MQTT = l.Addr().String()
	child := startChild(t, o)
	eventually(t, "the reason is reported", func() bool {
		taken := fmt.Sprintf("the mqtt address %s is taken by process %d", l.Addr(), os.Getpid())
		s := child.last()
		return s.Err != nil && strings.Contains(s.Err.Error(), taken) && s.State == Waiting && s.PID == 0 && s.Wait > 0
	})
	_ = l.Close()
	child.wait(t) // and it starts as soon as it can
}

func TestForeignOutputOfAChildIsOnlyText(t *testing.T) {
	c := Child{Log: testLog()}
	for _, line := range []string{"", "{", `{"level":7}`, `{"level":"NOPE","msg":"x"}`, "\xff"} {
		c.relay([]byte(line))
	}
}
