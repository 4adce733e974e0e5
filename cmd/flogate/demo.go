package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/participant"
)

func (a *app) demoCommand() *cobra.Command {
	var w where
	var every time.Duration
	cmd := &cobra.Command{
		Use:    "demo button|motor|warninglight",
		Short:  "Play a participant of the demo site",
		Hidden: true,
		Long: `The participants of configs/demo.hcl. The button is pressed now and then, the motor
runs for three seconds when it is started, the warning light is on while it runs.`,
		Args:      exactArgs("button|motor|warninglight"),
		ValidArgs: []string{"button", "motor", "warninglight"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(cmd.ValidArgs, args[0]) {
				return usagef("there is no participant %q in the demo; there are %s", args[0], strings.Join(cmd.ValidArgs, ", "))
			}
			log, err := a.logger()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			// The participant would wait for ever. Who plays wants to be told that there is nothing to play on.
			conn, err := a.connectPatiently(ctx, &w)
			if err != nil {
				return err
			}
			closeConn(ctx, conn)
			d := demo{broker: w.broker, cfg: participant.Config{Log: log}, out: func(s string) { fmt.Fprintln(a.stdout, s) }}
			switch args[0] {
			case "button":
				return d.button(ctx, every)
			case "motor":
				return d.motor(ctx)
			}
			return d.warningLight(ctx)
		},
	}
	cmd.Flags().StringVar(&w.broker, "broker", "", "the broker's URL (default: $MSGFLO_BROKER)")
	cmd.Flags().DurationVar(&w.timeout, "timeout", time.Minute, "how long to wait for the broker")
	cmd.Flags().DurationVar(&every, "every", 10*time.Second, "how often the button is pressed by itself; 0 for never")
	return cmd
}

// connectPatiently is connect for as long as w.timeout: a broker may be started at the same time.
func (a *app) connectPatiently(ctx context.Context, w *where) (transport.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	for {
		conn, err := a.connect(ctx, w)
		var exit *exitError
		if err == nil || transport.IsPermanent(err) || !errors.As(err, &exit) || exit.code != exitUnreachable {
			return conn, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// demo is a participant of the demo site.
type demo struct {
	broker string
	cfg    participant.Config
	out    func(string)
}

func (d demo) button(ctx context.Context, every time.Duration) error {
	p := participant.New(participant.Definition{
		Role: "button", Component: "demo/Button", Label: "Pressed by a person", Icon: "hand-o-down",
		Outports: []participant.Port{{
			ID: "pressed", Address: "button/pressed", Type: "boolean", Description: "true while it is pressed",
		}},
	}, d.cfg)
	var pressing sync.WaitGroup
	defer pressing.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop() // before the wait
	if every > 0 {
		pressing.Go(func() {
			for {
				select {
				case <-time.After(every):
				case <-ctx.Done():
					return
				}
				if p.SendJSON(ctx, "pressed", true) == nil { // it fails when ctx ends
					d.out("pressed")
				}
			}
		})
	}
	return p.Run(ctx, d.broker)
}

func (d demo) motor(ctx context.Context) error {
	p := participant.New(participant.Definition{
		Role: "motor", Component: "demo/Motor", Label: "Runs while it is told to", Icon: "cog",
		Inports:  []participant.Port{{ID: "start", Address: "motor/start", Type: "boolean"}},
		Outports: []participant.Port{{ID: "running", Address: "motor/running", Type: "boolean"}},
	}, d.cfg)
	p.Handle("start", participant.JSON(func(work context.Context, on bool) error {
		if !on {
			return nil
		}
		d.out("running")
		if err := p.SendJSON(work, "running", true); err != nil {
			return err
		}
		select {
		case <-time.After(3 * time.Second):
		case <-ctx.Done(): // work goes on a little longer: the light has to go out
		}
		d.out("stopped")
		return p.SendJSON(work, "running", false)
	}))
	return p.Run(ctx, d.broker)
}

func (d demo) warningLight(ctx context.Context) error {
	p := participant.New(participant.Definition{
		Role: "warninglight", Component: "demo/WarningLight", Label: "Red while the motor runs", Icon: "lightbulb-o",
		Inports: []participant.Port{{ID: "red", Address: "warninglight/red", Type: "boolean"}},
	}, d.cfg)
	p.Handle("red", participant.JSON(func(_ context.Context, on bool) error {
		if on {
			d.out("on")
		} else {
			d.out("off")
		}
		return nil
	}))
	return p.Run(ctx, d.broker)
}
