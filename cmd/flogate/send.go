package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/transport"
)

// where says which broker a command talks to.
type where struct {
	broker, site, options string
	timeout               time.Duration
}

// brokerUsage stands in place of a default: the flag's would be printed by --help, with the password in it.
const brokerUsage = "the broker's URL, or with --config its name in the site file (default: $MSGFLO_BROKER, $CLOUDAMQP_URL or " +
	defaultBroker + ")"

// defaultBroker is where MsgFlo's tools look for a broker that nobody has named.
const defaultBroker = "amqp://localhost"

// brokerFromEnvironment is the broker that is meant where none is given, as in MsgFlo.
func brokerFromEnvironment() string {
	return cmp.Or(os.Getenv("MSGFLO_BROKER"), os.Getenv("CLOUDAMQP_URL"), defaultBroker)
}

// fill fills in what is left to the environment. A site file knows its brokers itself.
func (w *where) fill() {
	if w.broker == "" && w.site == "" {
		w.broker = brokerFromEnvironment()
	}
}

func (w *where) brokerFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.broker, "broker", "", brokerUsage)
	siteFlag(cmd, &w.site, "the site file that knows the broker")
}

func (w *where) flags(cmd *cobra.Command) {
	w.brokerFlags(cmd)
	cmd.Flags().StringVar(&w.options, "options", "", "the transport's options for the address, as JSON")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 10*time.Second, "how long to wait for the broker")
}

// connect opens a connection to the broker, with the driver in this process: one message needs no plugin process. It fills
// in what w leaves to the environment.
func (a *app) connect(ctx context.Context, w *where) (transport.Conn, error) {
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	named := w.broker != ""
	w.fill()
	driver, req, err := a.driverFor(ctx, w, log)
	if err != nil {
		return nil, err
	}
	if err := w.checkOptions(ctx, driver); err != nil {
		return nil, err
	}
	conn, err := driver.Connect(ctx, req)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("nobody answers within %s (--timeout): is that the broker's address?", w.timeout)
	case transport.IsPermanent(err):
		// The broker answers, or it need not be asked.
	default:
		err = fmt.Errorf("%w: does the broker run, and is that its address?", err)
	}
	if !named && w.broker == defaultBroker {
		err = fmt.Errorf("%w (nobody has named another one: see --broker)", err)
	}
	code := exitUnreachable
	if transport.IsPermanent(err) {
		code = exitFailed // it was reached, and wants nothing to do with us
	}
	return nil, &exitError{code, fmt.Errorf("%s: %w", redactURL(w.broker), err)}
}

// redactURL returns a URL without its password, or the text as it is if it is a name.
func redactURL(s string) string {
	if u, err := url.Parse(s); err == nil && u.Host != "" {
		return u.Redacted()
	}
	return s
}

// checkOptions refuses options that the transport does not know, which drivers pass over.
func (w *where) checkOptions(ctx context.Context, driver transport.Driver) error {
	if w.options == "" {
		return nil
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal([]byte(w.options), &given); err != nil {
		return usagef("--options is no JSON object: %w", err)
	}
	d, err := driver.Describe(ctx)
	if err != nil {
		return err
	}
	var known []string
	for _, s := range []transport.Schema{d.Source, d.Sink} {
		for _, at := range s.Attributes {
			known = append(known, at.Name)
		}
		for _, b := range s.Blocks {
			known = append(known, b.Name)
		}
	}
	slices.Sort(known)
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(known, name) {
			return usagef("--options: %s has no option %q; it has %s", d.Name, name, strings.Join(slices.Compact(known), ", "))
		}
	}
	return nil
}

func (a *app) sendCommand() *cobra.Command {
	var w where
	var queue, text, asJSON, file string
	var headers []string
	var retain bool
	cmd := &cobra.Command{
		Use:   "send --queue ADDRESS (--json J | --text T | --file F)",
		Short: "Send one message to an address on a broker",
		Long: `Sends one message and waits until the broker has confirmed it, where it does.
--queue is a topic (MQTT), a queue (AMQP) or a subject (NATS). What --options may
hold is in the transport's documentation, and in 'flogate plugin describe'.`,
		Example: `  flogate send --broker mqtt://127.0.0.1 --queue button/pressed --json true
  flogate send --config site.hcl --broker amqp.work --queue orders --file order.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if queue == "" {
				return usagef("--queue is missing: the address to send to")
			}
			body, err := a.body(cmd, text, asJSON, file)
			if err != nil {
				return err
			}
			msg := transport.Message{Body: body, Durable: true, Retain: retain}
			if cmd.Flags().Changed("json") {
				msg.ContentType = "application/json"
			}
			for _, h := range headers {
				name, value, ok := strings.Cut(h, "=")
				if !ok {
					return usagef("--header is %q: it is NAME=VALUE", h)
				}
				msg.Headers = append(msg.Headers, transport.Header{Name: name, Value: value})
			}
			if w.options != "" && !json.Valid([]byte(w.options)) {
				return usagef("--options is not JSON: %s", w.options)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), w.timeout)
			defer cancel()
			return a.send(ctx, w, transport.Sink{Name: "send", Address: queue, Options: rawJSON(w.options)}, msg)
		},
	}
	w.flags(cmd)
	cmd.Flags().StringVar(&queue, "queue", "", "the address to send to")
	cmd.Flags().StringVar(&asJSON, "json", "", "the body, which must be JSON")
	cmd.Flags().StringVar(&text, "text", "", "the body, as it is")
	cmd.Flags().StringVar(&file, "file", "", "the file with the body; - for standard input")
	cmd.Flags().StringArrayVar(&headers, "header", nil, "NAME=VALUE, where the transport has headers; may be repeated")
	cmd.Flags().BoolVar(&retain, "retain", false, "the broker shall keep it as the last value of the address")
	return cmd
}

func (a *app) body(cmd *cobra.Command, text, asJSON, file string) ([]byte, error) {
	given := 0
	for _, name := range []string{"json", "text", "file"} {
		if cmd.Flags().Changed(name) {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, usagef("the body is missing, or there is more than one: give --json, --text or --file")
	case cmd.Flags().Changed("json"):
		if !json.Valid([]byte(asJSON)) {
			return nil, usagef("--json is not JSON: %s (a text needs its quotes, or use --text)", asJSON)
		}
		return []byte(asJSON), nil
	case cmd.Flags().Changed("text"):
		return []byte(text), nil
	case file == "-":
		return io.ReadAll(a.stdin)
	}
	return os.ReadFile(file)
}

// rawJSON returns nil for nothing, so that a driver sees that nothing was given.
func rawJSON(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	return json.RawMessage(s)
}

func (a *app) send(ctx context.Context, w where, sink transport.Sink, msg transport.Message) (err error) {
	conn, err := a.connect(ctx, &w)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	pub, err := conn.Publish(ctx, sink)
	if err != nil {
		return fmt.Errorf("%s: %w", sink.Address, err)
	}
	if err := pub.Publish(ctx, []transport.Message{msg}); err != nil {
		return fmt.Errorf("%s: %w", sink.Address, err)
	}
	confirms, err := pub.Confirms(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return &exitError{exitUnreachable, fmt.Errorf("%s: the broker has not confirmed within %s", sink.Address, w.timeout)}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", sink.Address, err)
	}
	if refused := confirms[0].Refused; refused != nil {
		return fmt.Errorf("%s: refused: %w", sink.Address, refused)
	}
	return nil
}

func closeConn(ctx context.Context, conn transport.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the process ends anyway
}

func (a *app) dumpCommand() *cobra.Command {
	var w where
	var queue string
	var amount int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "dump --queue ADDRESS",
		Short: "Print messages from an address on a broker, and take them",
		Long: `Prints the bodies of messages as they come, a line each, and acknowledges them: what
is taken from a queue is gone from it. Topics and subjects are copied. It ends after
--amount messages, or with Ctrl-C.`,
		Example: `  flogate dump --broker mqtt://127.0.0.1 --queue 'warninglight/#' --amount 1
  flogate dump --config site.hcl --broker amqp.work --queue dead.archive --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if queue == "" {
				return usagef("--queue is missing: the address to read from")
			}
			if w.options != "" && !json.Valid([]byte(w.options)) {
				return usagef("--options is not JSON: %s", w.options)
			}
			if amount < 0 {
				return usagef("--amount is %d: it is 0 for no end, or more", amount)
			}
			return a.dump(cmd.Context(), w, queue, amount, asJSON)
		},
	}
	w.flags(cmd)
	cmd.Flags().StringVar(&queue, "queue", "", "the address to read from")
	cmd.Flags().IntVar(&amount, "amount", 0, "end after so many messages; 0 for no end")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object per message, with its address and headers")
	return cmd
}

func (a *app) dump(ctx context.Context, w where, queue string, amount int, asJSON bool) error {
	opening, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	conn, err := a.connect(opening, &w)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	window := int64(64)
	if amount > 0 {
		window = min(window, int64(amount)) // take no more than is asked for
	}
	sub, err := conn.Subscribe(opening, transport.Source{
		Name: fmt.Sprintf("dump-%d", os.Getpid()), Address: queue,
		Window: transport.Credit{Messages: window, Bytes: 32 << 20}, Options: rawJSON(w.options),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", queue, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		_ = sub.Remove(ctx) // nobody will come back for it
	}()
	left := amount
	if err := sub.Grant(transport.Credit{Messages: window, Bytes: 32 << 20}); err != nil {
		return err
	}
	// Whoever waits for a message can now let it be sent.
	fmt.Fprintf(a.stderr, "flogate: reading from %s on %s\n", queue, redactURL(w.broker))
	granted := int(window)
	for amount == 0 || left > 0 {
		ds, err := sub.Receive(ctx)
		if ctx.Err() != nil {
			return nil // Ctrl-C is how one ends it
		}
		if err != nil {
			return fmt.Errorf("%s: %w", queue, err)
		}
		for _, d := range ds {
			if err := a.printMessage(d, asJSON); err != nil {
				return err
			}
			if err := sub.Settle(ctx, []transport.Settlement{{First: d.Seq, Last: d.Seq, Outcome: transport.Ack}}); err != nil {
				return err
			}
			left--
			granted--
			if amount == 0 || granted < left {
				granted++
				if err := sub.Grant(transport.Credit{Messages: 1, Bytes: int64(len(d.Body))}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// dumped is a message as --json prints it.
type dumped struct {
	Address       string          `json:"address"`
	Body          json.RawMessage `json:"body,omitempty"`    // if it is JSON
	Text          *string         `json:"text,omitempty"`    // if it is text
	Bytes         []byte          `json:"bytes,omitempty"`   // else, in base64
	Headers       []dumpedHeader  `json:"headers,omitempty"` // in their order
	ID            string          `json:"id,omitempty"`      // the publisher's
	ContentType   string          `json:"content_type,omitempty"`
	CorrelationID string          `json:"correlation_id,omitempty"`
	ReplyTo       string          `json:"reply_to,omitempty"`
	Redelivered   bool            `json:"redelivered,omitempty"`
	Retain        bool            `json:"retain,omitempty"`
}

type dumpedHeader struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	Bytes []byte `json:"bytes,omitempty"`
}

func (a *app) printMessage(d transport.Delivery, asJSON bool) error {
	if !asJSON {
		_, err := a.stdout.Write(append(slices.Clip(d.Body), '\n'))
		return err
	}
	out := dumped{
		Address: d.Address, ID: d.ID, ContentType: d.ContentType, CorrelationID: d.CorrelationID, ReplyTo: d.ReplyTo,
		Redelivered: d.Redelivered, Retain: d.Retain,
	}
	switch {
	case json.Valid(d.Body):
		out.Body = d.Body
	case utf8.Valid(d.Body):
		text := string(d.Body)
		out.Text = &text
	default:
		out.Bytes = d.Body
	}
	for _, h := range d.Headers {
		if h.Binary {
			out.Headers = append(out.Headers, dumpedHeader{Name: h.Name, Bytes: []byte(h.Value)})
		} else {
			out.Headers = append(out.Headers, dumpedHeader{Name: h.Name, Value: h.Value})
		}
	}
	return a.printJSON(out)
}
