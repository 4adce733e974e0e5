package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/admin"
)

func (a *app) statusCommand() *cobra.Command {
	var ask asking
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Ask the running gateway how everything is doing",
		Long: `Asks the gateway that listens at the admin address. With --config the address is
taken from the site file. Exit code 5 means that nobody answers there.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, body, err := a.ask(cmd, ask)
			if err != nil {
				return err
			}
			if asJSON {
				_, err := a.stdout.Write(body)
				return err
			}
			return printStatus(a.stdout, s, time.Now())
		},
	}
	ask.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// asking says which gateway is asked.
type asking struct{ address, site string }

func (q *asking) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&q.address, "admin", "127.0.0.1:3570", "the admin address of the gateway")
	siteFlag(cmd, &q.site, "the site file of the gateway")
}

// ask asks a running gateway for its status, and returns it as it was sent too.
func (a *app) ask(cmd *cobra.Command, q asking) (admin.Status, []byte, error) {
	var s admin.Status
	if q.site != "" && !cmd.Flags().Changed("admin") {
		site, err := a.look(cmd.Context(), q.site)
		if err != nil {
			fmt.Fprintf(a.stderr, "flogate: the gateway can be asked all the same: %s --admin ADDRESS\n", cmd.CommandPath())
			return s, nil, err
		}
		if site.Listen.Admin == "" {
			return s, nil, fmt.Errorf("%s has no listen.admin: nobody can be asked", q.site)
		}
		q.address = site.Listen.Admin
	}
	if _, _, err := net.SplitHostPort(q.address); err != nil {
		return s, nil, usagef("--admin is %q: it is HOST:PORT", q.address)
	}
	body, err := fetchStatus(cmd.Context(), q.address)
	if err != nil {
		return s, nil, &exitError{exitUnreachable, err}
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, nil, fmt.Errorf("what answers at %s is no flogate: %w", q.address, err)
	}
	return s, body, nil
}

func fetchStatus(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if asked := (*url.Error)(nil); errors.As(err, &asked) {
		err = asked.Err // the address is said below
	}
	if err != nil {
		return nil, fmt.Errorf("no gateway answers at %s (is it running? --admin and --config say where to ask): %w", address, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("what answers at %s is no flogate: %s", address, resp.Status)
	}
	return body, err
}

func printStatus(w io.Writer, s admin.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	age := func(since time.Time) string { return now.Sub(since).Round(time.Second).String() }
	fmt.Fprintf(t, "site %s, flogate %s, up for %s\n", s.Site, s.Version, age(s.Started))
	if s.Reload != "" {
		fmt.Fprintf(t, "the last change of the site file was not taken over:\n%s\n", cleanText(s.Reload))
	}
	if len(s.Edges) > 0 {
		fmt.Fprint(t, "\nEDGE\tSTATE\tFOR\tRATE\tMESSAGES\tIN FLIGHT\tDEAD\tREJECTED\tGUARANTEE\tREASON\n")
	}
	for _, e := range s.Edges {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f/s\t%d\t%d\t%d\t%d\t%s\t%s\n",
			clean(e.ID), e.State, age(e.Since), e.Rate, e.Messages, e.InFlight, e.DeadLetters, e.Rejected, e.Guarantee, clean(e.Reason))
	}
	for _, e := range s.Edges {
		if e.Warning != "" {
			fmt.Fprintf(t, "warning: %s: %s\n", clean(e.ID), clean(e.Warning))
		}
	}
	if len(s.Brokers) > 0 {
		fmt.Fprint(t, "\nBROKER\tSTATE\tFOR\tCONNECTS\tPRODUCT\tREASON\n")
	}
	for _, b := range s.Brokers {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", b.ID, b.State, age(b.Since), b.Connects, clean(b.Product), clean(b.Reason))
	}
	if len(s.Plugins) > 0 {
		fmt.Fprint(t, "\nPLUGIN\tSTATE\tFOR\tPID\tRESTARTS\tREASON\n")
	}
	for _, p := range s.Plugins {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\n", p.Name, p.State, age(p.Since), pid(p.PID), p.Restarts, clean(p.Reason))
	}
	others := 0
	for i, p := range s.Participants {
		if i == others && (p.InGraph || p.Started) {
			fmt.Fprint(t, "\nPARTICIPANT\tSTATE\tFOR\tPID\tRESTARTS\tREASON\n")
		}
		if !p.InGraph && !p.Started {
			others++
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\n", clean(p.Role), p.State, age(p.Since), pid(p.PID), p.Restarts, clean(p.Reason))
	}
	if others > 0 {
		fmt.Fprintf(t, "\nin no graph: %s, which 'flogate participants' lists\n", count(others, "participant"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	// Below the tables: they are sentences.
	for _, b := range s.Brokers {
		for _, warning := range b.Warnings {
			if _, err := fmt.Fprintf(w, "\n%s: %s\n", b.ID, clean(warning)); err != nil {
				return err
			}
		}
	}
	return nil
}

// pid is empty for what has no process now, or one that is not known.
func pid(id int) string {
	if id == 0 {
		return ""
	}
	return strconv.Itoa(id)
}

// clean makes a text safe for a terminal: reasons come from brokers and plugins, who might send anything.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
