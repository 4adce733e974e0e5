package participant_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/flogate/flogate/core/embedded"
	"github.com/flogate/flogate/participant"
)

// A motor that says whether it runs, and a lamp beside it. Their ports have the same address, so they need no gateway.
func Example() {
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	url, end := exampleBroker()
	defer end()

	var opened sync.WaitGroup // an MQTT topic keeps nothing for who has never been there
	opened.Add(2)
	cfg := participant.Config{Ready: opened.Done}

	motor := participant.New(participant.Definition{
		Role: "motor", Component: "demo/Motor", Label: "Runs while it is told to", Icon: "cog",
		Inports:  []participant.Port{{ID: "start", Type: "boolean"}},
		Outports: []participant.Port{{ID: "running", Type: "boolean"}},
	}, cfg)
	motor.Handle("start", participant.JSON(func(ctx context.Context, on bool) error {
		fmt.Println("motor:", on)
		return motor.SendJSON(ctx, "running", on) // acknowledged when this is confirmed
	}))

	lamp := participant.New(participant.Definition{
		Role: "lamp", Component: "demo/Lamp",
		Inports: []participant.Port{{ID: "on", Type: "boolean", Address: "motor.RUNNING"}},
	}, cfg)
	lit := make(chan bool, 10)
	lamp.Handle("on", participant.JSON(func(_ context.Context, on bool) error {
		lit <- on
		return nil
	}))

	button := participant.New(participant.Definition{
		Role: "button", Component: "demo/Button",
		Outports: []participant.Port{{ID: "pressed", Type: "boolean", Address: "motor.START"}},
	}, participant.Config{})

	var running sync.WaitGroup
	for _, p := range []*participant.Participant{motor, lamp, button} {
		running.Go(func() {
			if err := p.Run(ctx, url); err != nil {
				fmt.Println(err)
			}
		})
	}
	opened.Wait()
	if err := button.SendJSON(ctx, "pressed", true); err != nil {
		fmt.Println(err)
	}
	fmt.Println("lamp:", <-lit)
	stop()
	running.Wait()
	// Output:
	// motor: true
	// lamp: true
}

// Messages from a stream of NATS, several at a time; what cannot be done now is done later, and what never can is set aside.
func ExampleJSON_stream() {
	work := map[string]participant.Options{"nats": {
		"stream":        "WORK",
		"create_stream": map[string]any{"subjects": []string{"resize.>"}, "max_age": "168h"},
		"shared":        true, // by all that run
	}}
	p := participant.New(participant.Definition{
		Role: "resize", Component: "images/Resize",
		Inports: []participant.Port{{ID: "job", Type: "object", Concurrency: 4, Options: work}},
	}, participant.Config{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})

	type job struct{ URL string }
	p.Handle("job", participant.JSON(func(ctx context.Context, j job) error {
		if j.URL == "" {
			return participant.Reject(fmt.Errorf("no URL")) // never again
		}
		return resize(ctx, j.URL) // an error: later again
	}))
	if err := p.Run(context.Background(), os.Getenv("MSGFLO_BROKER")); err != nil {
		fmt.Println(err)
	}
}

// resize stands for work.
func resize(context.Context, string) error { return nil }

// exampleBroker runs a broker in this process, as flogate broker does in its own.
func exampleBroker() (url string, end func()) {
	dir, err := os.MkdirTemp("", "participant")
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan embedded.Addresses, 1), make(chan error, 1)
	go func() {
		ended <- embedded.Run(ctx, embedded.Options{
			NATS: "127.0.0.1:0", MQTT: "127.0.0.1:0", DataDir: dir, Ready: func(a embedded.Addresses) { ready <- a },
		}, slog.New(slog.DiscardHandler))
	}()
	select {
	case a := <-ready:
		url = "mqtt://" + a.MQTT
	case err := <-ended:
		panic(err)
	}
	return url, func() {
		cancel()
		if err := <-ended; err != nil {
			panic(err)
		}
		_ = os.RemoveAll(dir)
	}
}
