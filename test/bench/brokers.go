package main

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/flogate/flogate/test/brokers"
)

// life stands in for a test, for the brokers' sake: it has a beginning and an end.
type life struct {
	testing.TB // what is not used here panics
	cleanups   []func()
}

// fatal is what a failing broker panics with, for startBrokers to catch.
type fatal struct{ error }

func (*life) Helper()                        {}
func (*life) Failed() bool                   { return false }
func (*life) Errorf(format string, a ...any) { fmt.Fprintf(os.Stderr, format+"\n", a...) }
func (*life) Logf(string, ...any)            {}
func (*life) Fatal(a ...any)                 { panic(fatal{errors.New(fmt.Sprint(a...))}) }
func (*life) Fatalf(format string, a ...any) { panic(fatal{fmt.Errorf(format, a...)}) }
func (l *life) Cleanup(f func())             { l.cleanups = append(l.cleanups, f) }

func (l *life) TempDir() string {
	dir, err := os.MkdirTemp("", "flogate-bench-")
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (l *life) end() {
	for len(l.cleanups) > 0 {
		last := len(l.cleanups) - 1
		l.cleanups[last]()
		l.cleanups = l.cleanups[:last]
	}
}

// startBrokers starts the brokers that the edges need and returns their URLs by transport. They are set up so that none of
// their limits is what is measured: nothing on disk, TCP_NODELAY, and as many messages in
// flight to an MQTT subscriber as a feed of flogate has (mosquitto's default is 20).
func startBrokers(edges []edge) (urls map[string]string, end func(), err error) {
	l := &life{}
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(fatal)
			if !ok {
				panic(r)
			}
			l.end()
			err = f.error
		}
	}()
	urls = make(map[string]string)
	for _, e := range edges {
		for _, p := range []place{{kind: e.from}, {kind: e.to}} {
			t := p.transport()
			if urls[t] != "" {
				continue
			}
			switch t {
			case "mqtt":
				urls[t] = brokers.Mosquitto(l, brokers.Volatile(), brokers.Config("max_inflight_messages 512")).URL()
			case "amqp":
				urls[t] = brokers.RabbitMQ(l).URL()
			default:
				urls[t] = brokers.NATS(l).URL() // streams are in memory
			}
		}
	}
	return urls, l.end, nil
}
