package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/route"
)

func (a *app) explainCommand() *cobra.Command {
	var site string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain SITE.HCL",
		Short: "Print what each edge of a site guarantees, and why",
		Long: `Prints each edge with the places at both ends and what it guarantees; where that is
less than at-least-once, its weakest link. Then where participants are discovered,
and from which libraries they are started; not with --json, which prints the edges.
It connects to nothing: what a broker itself may lose is in docs/delivery.md.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := oneSite(cmd, args, site)
			if err != nil {
				return err
			}
			s, err := a.load(cmd.Context(), path)
			if err != nil {
				return err
			}
			if err := a.explain(s.Plan(), asJSON); err != nil || asJSON {
				return err
			}
			return a.explainSurroundings(s)
		},
	}
	siteFlag(cmd, &site, "the site file")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// explained is an edge as --json prints it.
type explained struct {
	Edge      string    `json:"edge"`
	Graph     string    `json:"graph"`
	Source    *endpoint `json:"source,omitempty"`
	Sink      *endpoint `json:"sink,omitempty"`
	Guarantee string    `json:"guarantee,omitempty"`
	Weakness  string    `json:"weakness,omitempty"`
	Warning   string    `json:"warning,omitempty"`
	Pending   string    `json:"pending,omitempty"`
	SamePlace bool      `json:"same_place,omitempty"`
	// Relay is the component of the node at one end that only routes; Broker is what the broker carries by itself.
	Relay  string   `json:"relay,omitempty"`
	Broker []string `json:"broker,omitempty"`
}

type endpoint struct {
	Broker  string `json:"broker"`
	Address string `json:"address"`
}

func (a *app) explain(plan route.Plan, asJSON bool) error {
	rows := []explained{}
	for _, e := range plan.Edges {
		row := explained{
			Edge: e.ID, Graph: e.Graph, Guarantee: string(e.Guarantee), Weakness: e.Weakness, Warning: e.Warning, Pending: e.Pending, SamePlace: e.SamePlace,
			Relay: e.Relay, Broker: e.Natives,
		}
		if e.Pending == "" {
			row.Source, row.Sink = at(e.Source), at(e.Sink)
		}
		rows = append(rows, row)
	}
	if asJSON {
		return a.printJSON(rows)
	}
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for i, r := range rows {
		if i > 0 {
			fmt.Fprintln(t)
		}
		fmt.Fprintln(t, r.Edge)
		switch {
		case r.Pending != "":
			fmt.Fprintf(t, "  pending\t%s\n", r.Pending)
			continue
		case r.SamePlace:
			both := cmp.Or(r.Source, r.Sink)
			fmt.Fprintf(t, "  both ends\t%s\t%s\n", both.Broker, both.Address)
			fmt.Fprint(t, "  guarantee\tthe broker's own: there is nothing to carry\n")
			continue
		}
		r.ends(t)
		for _, way := range r.Broker {
			_, way, _ = strings.Cut(way, ": ")
			fmt.Fprintf(t, "  by the broker\t%s\n", way)
		}
		if r.Guarantee != "" {
			fmt.Fprintf(t, "  guarantee\t%s\n", r.Guarantee)
		} else if len(r.Broker) > 0 {
			fmt.Fprint(t, "  guarantee\tthe broker's own\n")
		}
		if r.Weakness != "" {
			fmt.Fprintf(t, "  weakest link\t%s\n", r.Weakness)
		}
		if r.Warning != "" {
			fmt.Fprintf(t, "  warning\t%s\n", r.Warning)
		}
	}
	return t.Flush()
}

// at is a place, or nil for that of a node which only routes.
func at(p route.Place) *endpoint {
	if p == (route.Place{}) {
		return nil
	}
	return &endpoint{p.Broker, p.Address}
}

// ends prints where an edge begins and ends.
func (r explained) ends(w io.Writer) {
	for _, end := range []struct {
		name string
		at   *endpoint
	}{{"from", r.Source}, {"to", r.Sink}} {
		if end.at == nil {
			fmt.Fprintf(w, "  %s\t%s\n", end.name, r.Relay)
			continue
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", end.name, end.at.Broker, end.at.Address)
	}
}

// explainSurroundings prints where the participants come from that are not in the site.
func (a *app) explainSurroundings(s *config.Site) error {
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "\ndiscovery\n")
	for _, b := range s.Brokers {
		d := s.DiscoveryOn(b.ID())
		var addresses []string
		for _, address := range discovery.AddressesOn(b.Type, d.Addresses) {
			addresses = append(addresses, address.Address)
		}
		if len(addresses) == 0 {
			fmt.Fprintf(t, "  %s\tnone\n", b.ID())
			continue
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\n", b.ID(), strings.Join(addresses, ", "), silence(d.Silence))
	}
	if len(s.Libraries) > 0 {
		fmt.Fprint(t, "\nlibraries\n")
	}
	for _, l := range s.Libraries {
		at := l.File
		if at == "" {
			at = l.Dir
		}
		what := "not started"
		if l.Start {
			what = "started"
			if len(l.Ignore) > 0 {
				what += ", but for " + strings.Join(l.Ignore, ", ")
			}
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", l.Name, l.Broker, at, what)
	}
	return t.Flush()
}

// silence says when a participant is gone that has not said how often it would be heard of.
func silence(limit time.Duration) string {
	if limit < 0 {
		return "never gone by silence"
	}
	if limit == 0 {
		limit = discovery.DefaultLimit
	}
	text := limit.String()
	for _, nothing := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, nothing) {
			text = text[:len(text)-2]
		}
	}
	return fmt.Sprintf("gone after %s of silence", text)
}
