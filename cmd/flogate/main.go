// Command flogate joins message brokers into one flow-based graph.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// The exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitConfig      = 3
	exitUnreachable = 5
)

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// errReported ends a command whose error has been shown already.
var errReported = errors.New("reported")

// app is what every command has at hand.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	logLevel       slog.LevelVar
	logFormat      string
}

// run is main without the process: it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var exit *exitError
	switch {
	case err == nil:
		return exitOK
	case !errors.As(err, &exit):
		exit = &exitError{exitFailed, err}
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintf(stderr, "flogate: %v\n", err)
		if exit.code == exitUsage {
			fmt.Fprintln(stderr, "See 'flogate --help'.")
		}
	}
	return exit.code
}

func (a *app) root() *cobra.Command {
	var site string
	root := &cobra.Command{
		Use:   "flogate --config site.hcl",
		Short: "Join message brokers into one flow-based graph",
		Long: `flogate carries messages between MQTT, AMQP 0-9-1 and NATS along the edges of a
graph. A message is acknowledged at its source only after its sink has confirmed
it: nothing is lost and nothing is reordered, whatever is killed.

Without a command it runs a site, like 'flogate run'.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the site file is not valid,
5 a broker or the running gateway cannot be reached.`,
		Example: `  flogate --config configs/demo.hcl
  flogate validate site.hcl
  flogate send --broker mqtt://127.0.0.1 --queue button/pressed --json true`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if site == "" {
				return cmd.Help()
			}
			return a.runSite(cmd.Context(), site)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%w", err) })
	flags := root.PersistentFlags()
	flags.TextVar(&a.logLevel, "log-level", &a.logLevel, "debug, info, warn or error")
	flags.StringVar(&a.logFormat, "log-format", "", "text or json (default: text on a terminal, else json)")
	root.Flags().StringVarP(&site, "config", "c", "", "the site file")
	_ = root.MarkFlagFilename("config", "hcl") // the flag exists
	root.AddCommand(
		a.runCommand(),
		a.validateCommand(),
		a.brokerCommand(),
		a.pluginCommand(),
		a.sendCommand(),
		a.dumpCommand(),
		a.graphCommand(),
		a.statusCommand(),
		a.versionCommand(),
		a.demoCommand(),
	)
	return root
}

// logger returns the logger that the flags ask for. It writes to stderr, so that stdout is for what was asked for.
func (a *app) logger() (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: &a.logLevel}
	format := a.logFormat
	if format == "" {
		format = "json"
		if isTerminal(a.stderr) {
			format = "text"
		}
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(a.stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.stderr, opts)), nil
	}
	return nil, usagef("--log-format is %q: it is text or json", format)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// noArgs is cobra.NoArgs with our exit code, and with a guess at what was meant.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		return usagef("unknown command %q. Did you mean %s?", args[0], strings.Join(s, " or "))
	}
	return usagef("unknown command %q for %q", args[0], cmd.CommandPath())
}

// exactArgs wants one argument for each name.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usagef("%s wants %d argument(s): %s", cmd.CommandPath(), len(names), strings.Join(names, " "))
		}
		return nil
	}
}
