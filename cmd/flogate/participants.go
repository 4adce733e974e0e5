package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/admin"
)

func (a *app) participantsCommand() *cobra.Command {
	var ask asking
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "participants",
		Short: "Ask the running gateway who is there",
		Long: `Asks the gateway that listens at the admin address which participants there are: those
of the site file, those that have announced themselves on a broker, those that the
gateway has started, and nodes of graphs that nobody plays.

  present   somebody plays the role
  absent    a graph has the role, and nobody has announced it: its edges are pending
  starting  the gateway has started a program, which has not announced itself yet
  running   the gateway has started a program, which does not announce itself
  failed    the program that the gateway starts does not run

LAST HEARD is when the participant has announced itself; after a silence of 600 seconds,
or of three heartbeats of its own, it is gone.`,
		Example: `  flogate participants
  flogate participants --config site.hcl --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, _, err := a.ask(cmd, ask)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(s.Participants)
			}
			return printParticipants(a.stdout, s, time.Now())
		},
	}
	ask.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printParticipants(w io.Writer, s admin.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(s.Participants) == 0 {
		fmt.Fprintln(t, "nobody is there, and no graph has a node")
	} else {
		fmt.Fprint(t, "ROLE\tCOMPONENT\tSTATE\tFOR\tLAST HEARD\tBROKER\tFROM\tGRAPH\tREASON\n")
	}
	for _, p := range s.Participants {
		var last time.Time
		var brokers []string
		for _, a := range p.Announced {
			if a.Last.After(last) {
				last = a.Last
			}
			for _, on := range a.On {
				brokers = append(brokers, on.Broker)
			}
		}
		for _, port := range slices.Concat(p.Inports, p.Outports) {
			brokers = append(brokers, port.Broker)
		}
		slices.Sort(brokers)
		brokers = slices.DeleteFunc(slices.Compact(brokers), func(b string) bool { return b == "" })
		heard := "-"
		if !last.IsZero() {
			heard = now.Sub(last).Round(time.Second).String() + " ago"
		}
		graph := "no"
		if p.InGraph {
			graph = "yes"
		}
		from := p.From
		if n := len(p.Announced); n > 1 && !p.Started { // of one that we start these are earlier lives
			from += fmt.Sprintf(" (%d)", n)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", clean(p.Role), clean(p.Component), p.State,
			now.Sub(p.Since).Round(time.Second), heard, strings.Join(brokers, ","), from, graph, clean(p.Reason))
	}
	for _, d := range s.Discovery {
		if d.Malformed+d.Dropped > 0 {
			fmt.Fprintf(t, "%s: %d announcements could not be read, for %d there was no room (the log says why)\n", d.Broker, d.Malformed, d.Dropped)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range s.Participants {
		if p.Warning != "" {
			if _, err := fmt.Fprintf(w, "warning: %s: %s\n", clean(p.Role), clean(p.Warning)); err != nil {
				return err
			}
		}
	}
	return nil
}
