package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flogate/flogate/participant"
	"github.com/flogate/flogate/test/brokers"
)

// program runs flogate in a folder, and returns what it has printed on standard output and its exit code.
func program(t *testing.T, dir string, args ...string) (stdout string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "flogate", args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	t.Logf("flogate %s: exit code %d\n%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), errs.String())
	return out.String(), cmd.ProcessState.ExitCode()
}

// staying runs flogate until the test, or the function that it returns, ends it; that has to go well.
func staying(t *testing.T, dir string, args ...string) (end func()) {
	t.Helper()
	cmd := exec.Command("flogate", args...)
	var out bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		killer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer killer.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("flogate %s: %v\n%s", strings.Join(args, " "), err, out.String())
		}
	})
	t.Cleanup(end)
	return end
}

// play plays a role until the test ends. The addresses of ports are those that MsgFlo's libraries make.
func play(t *testing.T, url string, def participant.Definition, handle participant.Handler) *participant.Participant {
	t.Helper()
	p := participant.New(def, participant.Config{Period: time.Second})
	for _, in := range def.Inports {
		p.Handle(in.ID, handle)
	}
	var playing sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() {
		stop()
		playing.Wait()
	})
	playing.Go(func() {
		if err := p.Run(ctx, url); err != nil {
			t.Error(err)
		}
	})
	return p
}

// sender plays the role a, which sends from out.
func sender(t *testing.T, url string) (send func()) {
	t.Helper()
	a := play(t, url, participant.Definition{Role: "a", Component: "test/A", Outports: []participant.Port{{ID: "out"}}}, nil)
	return func() {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := a.SendJSON(ctx, "out", "hello"); err != nil {
			t.Error(err)
		}
	}
}

// taker plays a role that takes at in, and ends each message with an error or without.
func taker(t *testing.T, url, role string, err error) (taken <-chan struct{}) {
	t.Helper()
	got := make(chan struct{}, 100)
	play(t, url, participant.Definition{Role: role, Component: "test/B", Inports: []participant.Port{{ID: "in"}}},
		func(context.Context, participant.Message) error {
			select {
			case got <- struct{}{}:
			default:
			}
			return err
		})
	return got
}

// pair plays the roles a, which sends, and b, which takes.
func pair(t *testing.T, url string) (send func(), taken <-chan struct{}) {
	t.Helper()
	return sender(t, url), taker(t, url, "b", nil)
}

// carries sends until something arrives.
func carries(t *testing.T, send func(), taken <-chan struct{}) {
	t.Helper()
	for start := time.Now(); time.Since(start) < 30*time.Second; {
		send()
		select {
		case <-taken:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatal("nothing arrives")
}

// project makes a folder with files, and points flogate's state there.
func project(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	return dir
}

const pairGraph = "a(test/A) OUT -> IN b(test/B)"

func TestForeignParticipantIsAnnouncedOnRabbitMQ(t *testing.T) {
	work := brokers.RabbitMQ(t)
	dir := project(t, map[string]string{"lamp.yml": "component: c-base/lamp\ninports: { on: { queue: '#ROLE.ON' } }"})
	out, code := program(t, dir, "register", "--broker", work.URL(), "--role", "lamp:lamp.yml", "--forever=false")
	if code != 0 || !strings.Contains(out, "announced lamp (c-base/lamp)") {
		t.Fatalf("exit code %d, and it prints:\n%s", code, out)
	}
	// The queue is the one that every participant declares.
	out, code = program(t, dir, "dump", "--broker", work.URL(), "--queue", "fbp", "--amount", "1")
	if code != 0 || !strings.Contains(out, `"queue":"lamp.ON"`) {
		t.Fatalf("exit code %d, and there is:\n%s", code, out)
	}
}

func TestGraphIsSetUpOnRabbitMQ(t *testing.T) {
	for name, args := range map[string][]string{
		"by convention": {"setup", "graph.fbp", "--forever"},
		"by discovery":  {"setup", "graph.fbp", "--forever", "--discover"},
		"as a gateway":  {"--graph", "graph.fbp", "--admin", ""},
	} {
		t.Run(name, func(t *testing.T) {
			work := brokers.RabbitMQ(t)
			send, taken := pair(t, work.URL())
			staying(t, project(t, map[string]string{"graph.fbp": pairGraph}), append(args, "--broker", work.URL())...)
			carries(t, send, taken)
		})
	}
}

// TestRegistrationOutlivesItsBroker: a broker that is not there yet is waited for, and one that comes back is told again.
func TestRegistrationOutlivesItsBroker(t *testing.T) {
	house := brokers.Mosquitto(t)
	house.Stop()
	dir := project(t, map[string]string{"lamp.yml": "component: c-base/lamp"})
	staying(t, dir, "register", "--broker", house.URL(), "--role", "lamp:lamp.yml", "--interval", "1")
	for _, how := range []string{"started", "killed"} {
		house.Start()
		out, code := program(t, dir, "dump", "--broker", house.URL(), "--queue", "fbp", "--amount", "2")
		if code != 0 || strings.Count(out, `"role":"lamp"`) != 2 {
			t.Fatalf("%s: exit code %d, and there is:\n%s", how, code, out)
		}
		if how == "started" {
			house.Kill()
		}
	}
}

// TestBrokerKeepsWhatWasSetUp: messages flow when nobody of ours is there any more, and initial packets are sent by nobody.
func TestBrokerKeepsWhatWasSetUp(t *testing.T) {
	for name, args := range map[string][]string{"by convention": nil, "by discovery": {"--discover"}} {
		t.Run(name, func(t *testing.T) {
			work := brokers.RabbitMQ(t)
			send, taken := pair(t, work.URL())
			dir := project(t, map[string]string{"graph.fbp": pairGraph + "\n'early' -> IN b"})
			args := append([]string{"setup", "graph.fbp", "--broker", work.URL()}, args...)
			out, code := program(t, dir, args...)
			if code != 0 || out != "bound  a.out -> b.in\n" {
				t.Fatalf("exit code %d, and it prints:\n%s", code, out)
			}
			select {
			case <-taken:
				t.Error("somebody has sent an initial packet")
			default:
			}
			carries(t, send, taken)
			// Again is no harm.
			out, code = program(t, dir, append(args, "--json")...)
			if code != 0 || !strings.HasPrefix(out, `{"edge":"a.out -> b.in","bound":true,"source":{"broker":"amqp.broker","address":"a.OUT"}`) {
				t.Fatalf("exit code %d, and it prints:\n%s", code, out)
			}
			carries(t, send, taken)
			// And what was bound can be taken back, by whomever it was.
			out, code = program(t, dir, "setup", "graph.fbp", "--broker", work.URL(), "--remove")
			if code != 0 || out != "not bound  a.OUT -> b.IN on amqp.broker\n" {
				t.Fatalf("exit code %d, and it prints:\n%s", code, out)
			}
			for len(taken) > 0 {
				<-taken
			}
			send()
			select {
			case <-taken:
				t.Error("it flows still")
			case <-time.After(300 * time.Millisecond):
			}
		})
	}
}

// TestBrokerKeepsRoundRobin: what consumers reject goes to the dead letters, and nobody of ours is there.
func TestBrokerKeepsRoundRobin(t *testing.T) {
	work := brokers.RabbitMQ(t)
	send := sender(t, work.URL())
	rejected := taker(t, work.URL(), "b", participant.Reject(errors.New("not this one")))
	dead := taker(t, work.URL(), "c", nil)
	dir := project(t, map[string]string{
		"graph.fbp": "a(test/A) OUT -> IN rr(msgflo/RoundRobin) OUT -> IN b(test/B)\nrr DEADLETTER -> IN c(test/B)",
	})
	out, code := program(t, dir, "setup", "graph.fbp", "--broker", work.URL())
	if code != 0 || strings.Count(out, "\nbound ") != 2 {
		t.Fatalf("exit code %d, and it prints:\n%s", code, out)
	}
	carries(t, send, rejected)
	carries(t, send, dead)
	out, code = program(t, dir, "setup", "graph.fbp", "--broker", work.URL(), "--remove", "--json")
	if code != 0 || !strings.Contains(out, `{"broker":"amqp.broker","from":"a.OUT","to":"out-a.OUT"}`) {
		t.Fatalf("exit code %d, and it prints:\n%s", code, out)
	}
}

// TestGatewayTakesOverWhatWasSetUp: one that carries an edge itself takes back what setup has bound for it, or every message
// would come twice.
func TestGatewayTakesOverWhatWasSetUp(t *testing.T) {
	work := brokers.RabbitMQ(t)
	send, taken := pair(t, work.URL())
	dir := project(t, map[string]string{"graph.fbp": pairGraph})
	if out, code := program(t, dir, "setup", "graph.fbp", "--broker", work.URL()); code != 0 {
		t.Fatalf("exit code %d, and it prints:\n%s", code, out)
	}
	staying(t, dir, "--graph", "graph.fbp", "--admin", "", "--broker", work.URL())
	once := 0 // in a row
	for start := time.Now(); once < 5; {
		if time.Since(start) > 30*time.Second {
			t.Fatal("messages do not come once")
		}
		for len(taken) > 0 {
			<-taken
		}
		send()
		time.Sleep(200 * time.Millisecond) // whether another comes
		if once++; len(taken) != 1 {
			once = 0
		}
	}
}

func TestSetupSaysWhatNoBrokerKeeps(t *testing.T) {
	house, work := brokers.Mosquitto(t), brokers.RabbitMQ(t)
	pair(t, work.URL())
	dir := project(t, map[string]string{
		"graph.fbp": pairGraph + "\na OUT -> ON lamp(c-base/lamp)",
		"lamp.yml":  "component: c-base/lamp\ninports: { on: { queue: '#ROLE/on' } }",
		"alone.fbp": pairGraph + "\na OUT -> IN c(test/C)",
	})
	staying(t, dir, "register", "--broker", house.URL(), "--role", "lamp:lamp.yml", "--interval", "1")
	out, code := program(t, dir, "setup", "graph.fbp", "--discover", "--broker", work.URL(), "--broker", house.URL())
	if code != 1 || !strings.Contains(out, "bound      a.out -> b.in\n") ||
		!strings.Contains(out, `not bound  a.out -> lamp.on  routing = "broker" is not possible: lamp.on is on mqtt.broker`) {
		t.Fatalf("exit code %d, and it prints:\n%s", code, out)
	}
	out, code = program(t, dir, "setup", "alone.fbp", "--discover", "--broker", work.URL(), "--timeout", "3")
	if code != 1 || !strings.Contains(out, "not bound  a.out -> c.in  ") {
		t.Fatalf("exit code %d, and it prints:\n%s", code, out)
	}
	out, code = program(t, dir, "setup", "graph.fbp", "--broker", "amqp://127.0.0.1:1", "--timeout", "1")
	if code != exitUnreachable {
		t.Fatalf("exit code %d, and it prints:\n%s", code, out)
	}
}
