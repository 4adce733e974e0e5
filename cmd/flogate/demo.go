package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/transport"
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
			conn, err := a.connectPatiently(ctx, &w)
			if err != nil {
				return err
			}
			defer closeConn(ctx, conn)
			d := demo{conn: conn, log: log, out: func(s string) { fmt.Fprintln(a.stdout, s) }}
			switch args[0] {
			case "button":
				err = d.button(ctx, every)
			case "motor":
				err = d.motor(ctx)
			case "warninglight":
				err = d.warningLight(ctx)
			}
			if ctx.Err() != nil {
				return nil
			}
			return err
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
	conn transport.Conn
	log  *slog.Logger
	out  func(string)
}

func (d demo) button(ctx context.Context, every time.Duration) error {
	pressed, err := d.outport(ctx, "button/pressed")
	if err != nil {
		return err
	}
	if every <= 0 {
		<-ctx.Done()
		return nil
	}
	for {
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil
		}
		if err := pressed("true"); err != nil {
			return err
		}
		d.out("pressed")
	}
}

func (d demo) motor(ctx context.Context) error {
	running, err := d.outport(ctx, "motor/running")
	if err != nil {
		return err
	}
	return d.inport(ctx, "motor/start", func(body string) error {
		if body == "false" {
			return nil
		}
		d.out("running")
		if err := running("true"); err != nil {
			return err
		}
		select {
		case <-time.After(3 * time.Second):
		case <-ctx.Done():
		}
		d.out("stopped")
		return running("false")
	})
}

func (d demo) warningLight(ctx context.Context) error {
	return d.inport(ctx, "warninglight/red", func(body string) error {
		if body == "true" {
			d.out("on")
		} else {
			d.out("off")
		}
		return nil
	})
}

// outport returns a function that publishes and waits for the broker's word.
func (d demo) outport(ctx context.Context, address string) (func(body string) error, error) {
	pub, err := d.conn.Publish(ctx, transport.Sink{Name: "demo " + address, Address: address})
	if err != nil {
		return nil, err
	}
	return func(body string) error {
		if err := pub.Publish(ctx, []transport.Message{{Body: []byte(body), Durable: true}}); err != nil {
			return err
		}
		_, err := pub.Confirms(ctx)
		return err
	}, nil
}

// inport calls handle for each message and acknowledges it after.
func (d demo) inport(ctx context.Context, address string, handle func(body string) error) error {
	window := transport.Credit{Messages: 16, Bytes: 1 << 20}
	sub, err := d.conn.Subscribe(ctx, transport.Source{Name: "demo " + address, Address: address, Window: window})
	if err != nil {
		return err
	}
	if err := sub.Grant(window); err != nil {
		return err
	}
	for {
		ds, err := sub.Receive(ctx)
		if err != nil {
			return err
		}
		for _, m := range ds {
			if err := handle(string(m.Body)); err != nil {
				return err
			}
			if err := sub.Settle(ctx, []transport.Settlement{{First: m.Seq, Last: m.Seq, Outcome: transport.Ack}}); err != nil {
				return err
			}
			if err := sub.Grant(transport.Credit{Messages: 1, Bytes: int64(len(m.Body))}); err != nil {
				return err
			}
		}
	}
}
