package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(args) > 0 && args[0] == bridgeCommand {
		err = bridge(ctx, args)
	} else {
		err = bench(ctx, args, stdout, stderr)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 2
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func bridge(ctx context.Context, args []string) error {
	from, to, joined, err := bridgeOf(args)
	if err != nil {
		return err
	}
	if err := runBridge(ctx, from, to, joined); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// options are what the flags say.
type options struct {
	edges    []edge
	variants []variant
	sizes    []int
	rates    []int
	reduced  bool
	rounds   int
	seconds  float64
	calm     float64
	onlyCalm bool
	markdown bool
	checks   string
	program  string
	in, out  string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	edges := flags.String("edges", "all", "edges, as mqtt1-amqp,amqp-amqp")
	sizes := flags.String("sizes", "100,1024,16384", "bytes of a body")
	rates := flags.String("rates", "saturated,1000,5000", "messages a second")
	variants := flags.String("variants", "all", "hand, coalesced, none, processes")
	quick := flags.Bool("quick", false, "a subset that takes a few minutes: 1 KiB, one round of one second")
	flags.BoolVar(&o.reduced, "reduced", false, "fixed rates at 1024 bytes only")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds; the table has their medians")
	flags.Float64Var(&o.seconds, "seconds", 3, "how long a round of a cell is measured, after a fourth of that to warm up")
	flags.Float64Var(&o.calm, "calm", 0.2, "measure a cell again, twice at most, when others had more than this part of the CPUs; the calmest counts")
	flags.BoolVar(&o.onlyCalm, "only-calm", false, "print only what was measured while others had no more than that")
	flags.BoolVar(&o.markdown, "markdown", false, "print tables in Markdown")
	flags.StringVar(&o.checks, "check", "table,startup", "table: the cells. startup: start to first message, and memory when idle. flood: 10,000 announcements a second")
	flags.StringVar(&o.program, "program", "", "a flogate that is built already")
	flags.StringVar(&o.in, "in", "", "print the results of these files, and measure nothing")
	flags.StringVar(&o.out, "out", "", "write results to this file, too")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("what is %q?", flags.Arg(0))
	}
	if *quick {
		*sizes, o.rounds, o.seconds = "1024", 1, 1
	}
	var errs [4]error
	o.edges, errs[0] = choose(*edges, allEdges(), edge.name)
	o.variants, errs[1] = choose(*variants, allVariants(), func(v variant) string { return string(v) })
	o.sizes, errs[2] = numbers(*sizes, "")
	o.rates, errs[3] = numbers(*rates, "saturated")
	if o.rounds < 1 || o.seconds <= 0 {
		return o, errors.New("rounds and seconds have to be more than 0")
	}
	return o, errors.Join(errs[:]...)
}

// cells of the table, in its order.
func (o *options) cells() []cell {
	var cs []cell
	for _, rate := range o.rates {
		for _, size := range o.sizes {
			if o.reduced && rate != 0 && size != 1024 {
				continue
			}
			for _, e := range o.edges {
				cs = append(cs, cell{e, size, rate})
			}
		}
	}
	return cs
}

func bench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	var r results
	if o.in != "" {
		for path := range strings.SplitSeq(o.in, ",") {
			if err := r.read(path); err != nil {
				return err
			}
		}
	} else if err := measure(ctx, o, &r, stderr); err != nil {
		return err
	}
	if o.out != "" {
		if err := r.write(o.out); err != nil {
			return err
		}
	}
	if o.onlyCalm {
		r.Samples = slices.DeleteFunc(r.Samples, func(x sample) bool { return x.Others > o.calm })
	}
	if o.markdown {
		r.markdown(stdout)
	} else {
		r.text(stdout)
	}
	return nil
}

// measure starts the brokers and measures what the options ask for. When ctx ends early, what there is by then is kept.
func measure(ctx context.Context, o options, r *results, progress io.Writer) error {
	dir, err := os.MkdirTemp("", "flogate-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.program == "" {
		o.program = filepath.Join(dir, "flogate")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", o.program, "github.com/flogate/flogate/cmd/flogate")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build flogate: %w\n%s", err, out)
		}
	}
	s := &settings{
		measure: time.Duration(o.seconds * float64(time.Second)),
		program: o.program, dir: dir, calm: o.calm,
	}
	s.warmup = s.measure / 4
	urls, end, err := startBrokers(o.edges)
	if err != nil {
		return err
	}
	defer end()
	s.urls = urls

	cells := o.cells()
	if !strings.Contains(o.checks, "table") {
		cells = nil
	}
	for round := range o.rounds {
		for _, c := range cells {
			for i := range o.variants {
				v := o.variants[(i+round)%len(o.variants)] // nobody is always the first
				if ctx.Err() != nil {
					return nil //nolint:nilerr // interrupted: what there is, is printed
				}
				x := s.cell(ctx, c, v)
				x.Round = round
				r.Samples = append(r.Samples, x)
				fmt.Fprintln(progress, x.line())
				if o.out != "" {
					if err := r.write(o.out); err != nil {
						return err
					}
				}
			}
		}
	}
	if strings.Contains(o.checks, "startup") {
		for round := range o.rounds {
			for _, e := range []edge{{mqtt1, amqpQueue}, {amqpQueue, mqtt1}} {
				if !slices.Contains(o.edges, e) {
					continue
				}
				for _, v := range o.variants {
					if ctx.Err() != nil {
						return nil //nolint:nilerr // as above
					}
					x := s.startup(ctx, e, v)
					x.Round = round
					r.Starts = append(r.Starts, x)
					fmt.Fprintln(progress, x.line())
				}
			}
		}
	}
	if strings.Contains(o.checks, "flood") {
		for round := range o.rounds {
			for _, e := range []edge{{mqtt0, mqtt0}, {amqpQueue, amqpQueue}, {natsCore, mqtt0}} {
				if !slices.Contains(o.edges, e) {
					continue
				}
				for _, v := range []variant{none, processes} {
					if ctx.Err() != nil || !slices.Contains(o.variants, v) {
						continue
					}
					x := s.flood(ctx, e, v)
					x.Round = round
					r.Floods = append(r.Floods, x)
					fmt.Fprintln(progress, x.line())
				}
			}
		}
	}
	return nil
}

// results are everything that was measured.
type results struct {
	Samples []sample  `json:"samples"`
	Starts  []startup `json:"starts"`
	Floods  []flood   `json:"floods,omitempty"`
}

func (r *results) read(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var more results
	if err := json.Unmarshal(data, &more); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	r.Samples = append(r.Samples, more.Samples...)
	r.Starts = append(r.Starts, more.Starts...)
	r.Floods = append(r.Floods, more.Floods...)
	return nil
}

func (r *results) write(path string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}
