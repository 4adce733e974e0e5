// Command flogate joins message brokers into one flow-based graph.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
var errReported = errors.New("it is not valid")

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
	asked, err := root.ExecuteContextC(ctx)
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
			fmt.Fprintf(stderr, "See '%s --help'.\n", asked.CommandPath())
		}
	}
	return exit.code
}

func (a *app) root() *cobra.Command {
	var site string
	var q quick
	root := &cobra.Command{
		Use:   "flogate --config site.hcl",
		Short: "Join message brokers into one flow-based graph",
		Long: `flogate carries messages between MQTT, AMQP 0-9-1 and NATS along the edges of a
graph. A message is acknowledged at its source only after its sink has confirmed
it: nothing is lost and nothing is reordered, whatever is killed.

Without a command it runs a site, like 'flogate run'. With --graph and --broker it
needs no site file: participants are found as they announce themselves, and those whose
components are in the library (package.json) are started.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the site file is not valid,
5 a broker or the running gateway cannot be reached.`,
		Example: `  flogate --config configs/demo.hcl
  flogate --graph graphs/main.fbp --broker amqp://localhost --broker mqtt://house
  flogate validate site.hcl
  flogate send --broker mqtt://127.0.0.1 --queue button/pressed --json true`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if site == "" && q.given(cmd) == "" {
				return cmd.Help()
			}
			return a.runAsked(cmd, site, q)
		},
	}
	root.SetFlagErrorFunc(flagError)
	flags := root.PersistentFlags()
	flags.TextVar(&a.logLevel, "log-level", &a.logLevel, "debug, info, warn or error")
	flags.StringVar(&a.logFormat, "log-format", "", "text or json (default: text on a terminal, else json)")
	root.Flags().StringVarP(&site, "config", "c", "", "the site file")
	_ = root.MarkFlagFilename("config", "hcl") // the flag exists
	q.flags(root)
	// The flags exist.
	_ = root.RegisterFlagCompletionFunc("log-level", words("debug", "info", "warn", "error"))
	_ = root.RegisterFlagCompletionFunc("log-format", words("text", "json"))
	root.AddCommand(
		a.runCommand(),
		a.validateCommand(),
		a.explainCommand(),
		a.brokerCommand(),
		a.pluginCommand(),
		a.sendCommand(),
		a.dumpCommand(),
		a.setupCommand(),
		a.registerCommand(),
		a.registerForeignCommand(),
		a.procfileCommand(),
		a.graphCommand(),
		a.statusCommand(),
		a.deadCommand(),
		a.participantsCommand(),
		a.versionCommand(),
		a.demoCommand(),
		a.guardCommand(),
	)
	return root
}

// logger returns the logger that the flags ask for. It writes to stderr, so that stdout is for what was asked for.
func (a *app) logger() (*slog.Logger, error) {
	terminal := isTerminal(a.stderr)
	format := a.logFormat
	if format == "" {
		format = map[bool]string{true: "text", false: "json"}[terminal]
	}
	switch format {
	case "text":
		clock := time.DateTime
		if terminal {
			clock = time.TimeOnly // whoever sits there knows the day
		}
		return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: &a.logLevel, ReplaceAttr: readable(clock)})), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.stderr, &slog.HandlerOptions{Level: &a.logLevel, ReplaceAttr: readable("")})), nil
	}
	return nil, usagef("--log-format is %q: it is text or json", format)
}

// readable writes durations as people do, not in nanoseconds, and the time of a record in the layout, if there is one.
func readable(clock string) func(groups []string, at slog.Attr) slog.Attr {
	return func(groups []string, at slog.Attr) slog.Attr {
		switch {
		case at.Value.Kind() == slog.KindDuration:
			at.Value = slog.StringValue(at.Value.Duration().Round(time.Millisecond).String())
		case clock != "" && len(groups) == 0 && at.Key == slog.TimeKey:
			at.Value = slog.StringValue(at.Value.Time().Format(clock))
		}
		return at
	}
}

// printJSON prints a value on standard output, a line for a person to read or a program to parse.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false) // an edge is "a.out -> b.in"
	return enc.Encode(v)
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
	if !cmd.HasAvailableSubCommands() {
		return usagef("%s takes no arguments, and there is %q", cmd.CommandPath(), args[0])
	}
	return usagef("unknown command %q for %q%s", args[0], cmd.CommandPath(), didYouMean(cmd, args[0], ""))
}

// flagError gives a wrong flag our exit code, and a guess at what was meant.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usagef("%w", err)
	}
	// A command with a sub-command for each flag, because cobra guesses at nothing else.
	flags := &cobra.Command{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		flags.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	return usagef("%w for %q%s", err, cmd.CommandPath(), didYouMean(flags, unknown.GetSpecifiedName(), "--"))
}

// didYouMean guesses which sub-command was meant. It is empty, or ends the sentence and asks.
func didYouMean(cmd *cobra.Command, given, prefix string) string {
	cmd.SuggestionsMinimumDistance = 2
	found := cmd.SuggestionsFor(given)
	if len(found) == 0 {
		return ""
	}
	for i, f := range found {
		found[i] = prefix + f
	}
	return fmt.Sprintf(". Did you mean %s?", strings.Join(found, " or "))
}

// words completes a flag with what it may be.
func words(list ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
}

// exactArgs wants one argument for each name.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usagef("%s wants %s, and there are %s", cmd.CommandPath(), strings.Join(names, " "), count(len(args), "argument"))
		}
		return nil
	}
}
