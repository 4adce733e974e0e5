package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/core/deadletter"
	"github.com/flogate/flogate/core/transport"
)

// deadFlags are the flags of the commands for dead letters.
type deadFlags struct {
	site          string
	limit         int
	wait, timeout time.Duration
	to, options   string
	lossy         bool
}

func (a *app) deadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead",
		Short: "List, show, redrive and drop dead letters",
		Long: `Works on the messages that sinks have refused for good, where the edges of a site
have a dead_letter. It works on the brokers themselves, whether or not the gateway
runs; what it does not take out stays where it is.

EDGE is written as 'flogate status' does: "a.out -> b.in", or a.out b.in. It may be
left out where the site has one place for dead letters only. N is the number that
'flogate dead list' shows; 3-7 are five of them.`,
		Example: `  flogate dead list -c site.hcl
  flogate dead show -c site.hcl "hall.temperature -> archive.in" 1
  flogate dead redrive -c site.hcl "hall.temperature -> archive.in" --all`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.deadListCommand(), a.deadShowCommand(), a.deadRedriveCommand(), a.deadDropCommand())
	return cmd
}

func (f *deadFlags) flags(cmd *cobra.Command) {
	siteFlag(cmd, &f.site, "the site file whose dead letters it is about")
	cmd.Flags().IntVar(&f.limit, "limit", 1000, "how many dead letters of a place to look at, at most")
	cmd.Flags().DurationVar(&f.wait, "wait", 2*time.Second, "how long to wait for another dead letter before that was all")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 10*time.Second, "how long to wait for a broker")
}

// mostLetters is how many letters of a place can be looked at: as many as brokers hand out before any of them is taken out.
const mostLetters = 60000

func (f *deadFlags) check() error {
	switch {
	case f.limit < 1 || f.limit > mostLetters:
		return usagef("--limit is %d: it is from 1 to %d", f.limit, mostLetters)
	case f.wait <= 0 || f.timeout <= 0:
		return usagef("--wait and --timeout are longer than nothing")
	}
	return nil
}

// selection is which letters a command is about.
type selection struct {
	edge   string // as it was named; empty for the only place
	ranges [][2]int
	all    bool
}

// parseSelection reads [EDGE] [N…].
func parseSelection(args []string, all bool) (selection, error) {
	s := selection{all: all}
	var words []string
	for _, arg := range args {
		if arg == "" || strings.Trim(arg, "0123456789-") != "" || arg[0] == '-' {
			if len(s.ranges) > 0 {
				return s, usagef("%q comes after a number: EDGE is first", arg)
			}
			words = append(words, arg)
			continue
		}
		from, to, isRange := strings.Cut(arg, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err := errors.Join(err1, err2); err != nil || first < 1 || last < first {
			return s, usagef("%q is no number of a dead letter: they are 1, 2, 3 …, and 3-7 is a range", arg)
		}
		if last > mostLetters {
			return s, usagef("%q: no more than %d dead letters of a place can be looked at", arg, mostLetters)
		}
		s.ranges = append(s.ranges, [2]int{first, last})
	}
	s.edge = strings.Join(words, " ")
	return s, nil
}

// need makes sure that letters were selected.
func (s selection) need() error {
	switch {
	case s.all && len(s.ranges) > 0:
		return usagef("there are numbers and --all: give one of them")
	case !s.all && len(s.ranges) == 0:
		return usagef("which dead letters? Give their numbers, as 'flogate dead list' shows them, or --all")
	}
	return nil
}

func (s selection) has(n int) bool {
	for _, r := range s.ranges {
		if n >= r[0] && n <= r[1] {
			return true
		}
	}
	return s.all
}

// last is the largest number that is selected, or limit for all.
func (s selection) last(limit int) int {
	if s.all {
		return limit
	}
	last := 1
	for _, r := range s.ranges {
		last = max(last, r[1])
	}
	return last
}

// missing returns the numbers that are selected and beyond what was there.
func (s selection) missing(there int) []string {
	var list []string
	for _, r := range s.ranges {
		switch first := max(r[0], there+1); {
		case first == r[1]:
			list = append(list, strconv.Itoa(first))
		case first < r[1]:
			list = append(list, fmt.Sprintf("%d-%d", first, r[1]))
		}
	}
	return list
}

func (s selection) String() string {
	if s.all {
		return "all dead letters"
	}
	var list []string
	for _, r := range s.ranges {
		if r[0] == r[1] {
			list = append(list, strconv.Itoa(r[0]))
		} else {
			list = append(list, fmt.Sprintf("%d-%d", r[0], r[1]))
		}
	}
	return "dead letter " + strings.Join(list, ", ")
}

// belongs says whether a letter is of an edge; with none named all are. What is of no edge that has its dead letters there is
// of each: somebody has to be able to name it.
func (b *letterBox) belongs(item deadletter.Item, edge string) bool {
	if t := b.targets[item.Edge]; t != nil && slices.Contains(t.edges, edge) {
		return true
	}
	return edge == "" || item.Edge == edge || !b.knows(item.Edge)
}

func (a *app) deadListCommand() *cobra.Command {
	var f deadFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [EDGE]",
		Short: "List dead letters",
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := parseSelection(args, true)
			if err == nil {
				err = f.check()
			}
			if err == nil && len(sel.ranges) > 0 {
				err = usagef("list takes no numbers: show does")
			}
			if err != nil {
				return err
			}
			return a.deadList(cmd.Context(), &f, sel.edge, asJSON)
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object for each dead letter")
	return cmd
}

// listedLetter is a dead letter as --json prints it.
type listedLetter struct {
	Broker   string    `json:"broker"`
	Address  string    `json:"address"`
	N        int       `json:"n"`
	Time     time.Time `json:"time,omitzero"`
	Edge     string    `json:"edge,omitempty"`
	Cause    string    `json:"cause,omitempty"`
	Attempts int       `json:"attempts,omitempty"`
	From     endpoint  `json:"from"`
	Size     int64     `json:"size"`
	Omitted  string    `json:"omitted,omitempty"`
	Begins   string    `json:"begins"`
	// Foreign: no gateway has put it there.
	Foreign bool `json:"foreign,omitempty"`

	*shownLetter
}

// shownLetter is what show adds.
type shownLetter struct {
	ContentType   string          `json:"content_type,omitempty"`
	ID            string          `json:"id,omitempty"`
	CorrelationID string          `json:"correlation_id,omitempty"`
	ReplyTo       string          `json:"reply_to,omitempty"`
	TTL           string          `json:"ttl,omitempty"`
	Retain        bool            `json:"retain,omitempty"`
	Headers       []dumpedHeader  `json:"headers,omitempty"`
	Body          json.RawMessage `json:"body,omitempty"`  // if it is JSON
	Text          *string         `json:"text,omitempty"`  // if it is text
	Bytes         []byte          `json:"bytes,omitempty"` // else, in base64
}

const beginning = 40 // bytes of a body in a list

func listed(b *letterBox, item deadletter.Item) listedLetter {
	return listedLetter{
		Broker: b.broker, Address: b.Address, N: item.N, Time: item.Time, Edge: item.Edge, Cause: cause(item), Attempts: item.Attempts,
		From: endpoint{item.Broker, item.Message.Address}, Size: item.Size, Omitted: omitted(item), Foreign: item.Foreign,
		Begins: begins(item.Message.Body),
	}
}

func cause(item deadletter.Item) string {
	if item.Foreign {
		return "(no gateway has put it there)"
	}
	return item.Cause
}

func omitted(item deadletter.Item) string {
	if item.TooLarge > 0 {
		return deadletter.Omitted(item.TooLarge)
	}
	return item.Omitted
}

// begins is how a body begins, for people.
func begins(body []byte) string {
	cut := body[:min(len(body), beginning)]
	for i := 0; i < utf8.UTFMax && len(cut) < len(body) && !utf8.Valid(cut) && len(cut) > 0; i++ {
		cut = cut[:len(cut)-1]
	}
	if !utf8.Valid(cut) {
		return hex.EncodeToString(body[:min(len(body), beginning/2)])
	}
	return clean(string(cut))
}

func (a *app) deadList(ctx context.Context, f *deadFlags, edge string, asJSON bool) error {
	d, err := a.openDeadSite(ctx, f)
	if err != nil {
		return err
	}
	defer d.close(ctx)
	boxes := letterBoxes(d.site)
	id := ""
	if edge != "" || len(boxes) == 0 {
		var b *letterBox
		if b, id, err = chooseBox(d.file, boxes, edge); err != nil {
			return err
		}
		boxes = []*letterBox{b}
	}
	for i, b := range boxes {
		if err := d.list(ctx, b, id, asJSON, i > 0); err != nil {
			return err
		}
	}
	return nil
}

// list prints the letters of a box, of one edge or of all. Bodies are forgotten as soon as their beginning is known.
func (d *deadSite) list(ctx context.Context, b *letterBox, edge string, asJSON, more bool) error {
	a := d.app
	box, err := d.open(ctx, b, d.flags.limit)
	if err != nil {
		return err
	}
	var rows []listedLetter
	there := 0
	err = each(ctx, box, d.flags.wait, func(item deadletter.Item) error {
		there = item.N
		if b.belongs(item, edge) {
			rows = append(rows, listed(b, item))
		}
		return nil
	})
	full := box.Full()
	if err := errors.Join(err, box.Close(ctx)); err != nil {
		return fmt.Errorf("%s %s: %w", b.broker, b.Address, err)
	}
	if asJSON {
		for _, row := range rows {
			if err := a.printJSON(row); err != nil {
				return err
			}
		}
	} else if err := a.printLetters(b, rows, more); err != nil {
		return err
	}
	switch {
	case full:
		fmt.Fprintf(a.stderr, "flogate: %s %s: there may be more than the %d that were looked at (--limit)\n", b.broker, b.Address, d.flags.limit)
	case b.fleeting && there >= handedOut:
		fmt.Fprintf(a.stderr, "flogate: %s %s: there may be more: brokers of topics hand out some at a time, like %d\n", b.broker, b.Address, handedOut)
	case b.silent(there) != "":
		fmt.Fprintf(a.stderr, "flogate: %s %s%s\n", b.broker, b.Address, b.silent(there))
	}
	return nil
}

// silent says why nothing may have come although there is something; empty where that cannot be.
func (b *letterBox) silent(there int) string {
	if !b.fleeting || there > 0 {
		return ""
	}
	return ": if somebody has looked a moment ago, a broker may wait before it hands out again (nats-server 30 seconds): --wait 35s"
}

// handedOut is how many messages mosquitto lets be out unless it is told otherwise.
const handedOut = 20

func (a *app) printLetters(b *letterBox, rows []listedLetter, more bool) error {
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	if more {
		fmt.Fprintln(t)
	}
	fmt.Fprintf(t, "%s %s: %s\n", b.broker, clean(b.Address), count(len(rows), "dead letter"))
	if len(rows) > 0 {
		fmt.Fprint(t, "N\tTIME\tEDGE\tTRIED\tSIZE\tCAUSE\tBEGINS\n")
	}
	for _, r := range rows {
		at := ""
		if !r.Time.IsZero() {
			at = r.Time.Local().Format(time.DateTime)
		}
		size := strconv.FormatInt(r.Size, 10)
		if r.Omitted != "" {
			size = "omitted"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\t%s\t%s\n", r.N, at, clean(r.Edge), r.Attempts, size, clean(r.Cause), r.Begins)
	}
	return t.Flush()
}

// each calls f for the letters of a box until there are no more.
func each(ctx context.Context, box *deadletter.Box, idle time.Duration, f func(deadletter.Item) error) error {
	for {
		items, err := box.Next(ctx, idle)
		if err != nil || len(items) == 0 {
			return err
		}
		for _, item := range items {
			if err := f(item); err != nil {
				return err
			}
		}
	}
}

func (a *app) deadShowCommand() *cobra.Command {
	var f deadFlags
	var raw, asJSON bool
	cmd := &cobra.Command{
		Use:   "show [EDGE] N",
		Short: "Show everything of a dead letter",
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := parseSelection(args, false)
			if err == nil {
				err = f.check()
			}
			if err != nil {
				return err
			}
			if len(sel.ranges) != 1 || sel.ranges[0][0] != sel.ranges[0][1] {
				return usagef("which dead letter? Give one number, as 'flogate dead list' shows it")
			}
			return a.deadShow(cmd.Context(), &f, sel, raw, asJSON)
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&raw, "raw", false, "print the body alone, as it is")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) deadShow(ctx context.Context, f *deadFlags, sel selection, raw, asJSON bool) error {
	d, b, edge, err := a.openChosen(ctx, f, sel)
	if err != nil {
		return err
	}
	defer d.close(ctx)
	n := sel.ranges[0][0]
	box, err := d.open(ctx, b, n)
	if err != nil {
		return err
	}
	var found *deadletter.Item
	seen := 0
	err = each(ctx, box, f.wait, func(item deadletter.Item) error {
		seen = item.N
		if item.N == n {
			found = &item
		}
		return nil
	})
	if err := errors.Join(err, box.Close(ctx)); err != nil {
		return fmt.Errorf("%s %s: %w", b.broker, b.Address, err)
	}
	switch {
	case found == nil:
		return fmt.Errorf("%s %s has no dead letter %d: it has %d%s", b.broker, b.Address, n, seen, b.silent(seen))
	case !b.belongs(*found, edge):
		return fmt.Errorf("dead letter %d of %s %s is not of this edge, but of %q", n, b.broker, b.Address, found.Edge)
	case raw:
		_, err := a.stdout.Write(found.Message.Body)
		return err
	}
	return a.printLetter(b, *found, asJSON)
}

// selection reads which letters are meant, of which there has to be one.
func (f *deadFlags) selection(args []string, all bool) (selection, error) {
	sel, err := parseSelection(args, all)
	if err = errors.Join(err, f.check()); err == nil {
		err = sel.need()
	}
	return sel, err
}

// openChosen opens the site, and chooses the box of the edge that is meant. The caller closes the site.
func (a *app) openChosen(ctx context.Context, f *deadFlags, sel selection) (d *deadSite, b *letterBox, edge string, err error) {
	if d, err = a.openDeadSite(ctx, f); err != nil {
		return nil, nil, "", err
	}
	if b, edge, err = chooseBox(d.file, letterBoxes(d.site), sel.edge); err != nil {
		d.close(ctx)
		return nil, nil, "", err
	}
	return d, b, edge, nil
}

func (a *app) printLetter(b *letterBox, item deadletter.Item, asJSON bool) error {
	m := item.Message
	row := listed(b, item)
	row.shownLetter = &shownLetter{
		ContentType: m.ContentType, ID: m.ID, CorrelationID: m.CorrelationID, ReplyTo: m.ReplyTo, Retain: m.Retain,
	}
	if m.TTL > 0 {
		row.TTL = m.TTL.String()
	}
	for _, h := range m.Headers {
		if h.Binary {
			row.Headers = append(row.Headers, dumpedHeader{Name: h.Name, Bytes: []byte(h.Value)})
		} else {
			row.Headers = append(row.Headers, dumpedHeader{Name: h.Name, Value: h.Value})
		}
	}
	text := utf8.Valid(m.Body)
	if asJSON {
		switch {
		case json.Valid(m.Body):
			row.Body = m.Body
		case text:
			s := string(m.Body)
			row.Text = &s
		default:
			row.Bytes = m.Body
		}
		return a.printJSON(row)
	}
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, clean(value))
		}
	}
	line("number", strconv.Itoa(item.N))
	line("at", b.broker+" "+b.Address)
	line("edge", row.Edge)
	line("cause", row.Cause)
	if !row.Time.IsZero() {
		line("time", row.Time.Format(time.RFC3339Nano))
	}
	if row.Attempts > 0 {
		line("tried", strconv.Itoa(row.Attempts))
	}
	line("came in at", strings.TrimSpace(row.From.Broker+" "+row.From.Address))
	line("size", strconv.FormatInt(row.Size, 10))
	line("body", row.Omitted)
	line("content type", row.ContentType)
	line("id", row.ID)
	line("correlation id", row.CorrelationID)
	line("reply to", row.ReplyTo)
	line("time to live", row.TTL)
	for _, h := range m.Headers {
		value := h.Value
		if h.Binary {
			value = "0x" + hex.EncodeToString([]byte(h.Value))
		}
		line("header "+h.Name, value)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(m.Body) == 0 {
		return nil
	}
	body := hex.Dump(m.Body)
	if text {
		body = cleanText(string(m.Body))
	}
	_, err := fmt.Fprintf(a.stdout, "\n%s\n", strings.TrimSuffix(body, "\n"))
	return err
}

// cleanText is clean for a text of several lines.
func cleanText(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = clean(strings.ReplaceAll(line, "\t", "    "))
	}
	return strings.Join(lines, "\n")
}

func (a *app) deadRedriveCommand() *cobra.Command {
	var f deadFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "redrive [EDGE] [N…]",
		Short: "Give dead letters to their sinks again",
		Long: `Publishes dead letters to the sinks of their edges again, one after another and in
order. Each is taken out of its place when the sink has confirmed it: if the command
is killed, nothing is lost, and at most one message comes twice. What the sink refuses
again goes behind the others, with the new cause.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := f.selection(args, all)
			if err == nil && f.options != "" && f.to == "" {
				err = usagef("--options is for --to")
			}
			if err == nil && f.to != "" {
				_, err = f.toSink("")
			}
			if err != nil {
				return err
			}
			return a.deadRedrive(cmd.Context(), &f, sel)
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all that are there, up to --limit")
	cmd.Flags().BoolVar(&f.lossy, "yes", false, "also to a place that confirms nothing, where letters can be lost")
	cmd.Flags().StringVar(&f.to, "to", "", `another place to publish to: "BROKER ADDRESS"`)
	cmd.Flags().StringVar(&f.options, "options", "", "the transport's options for --to, as JSON")
	return cmd
}

func (a *app) deadRedrive(ctx context.Context, f *deadFlags, sel selection) error {
	d, b, edge, err := a.openChosen(ctx, f, sel)
	if err != nil {
		return err
	}
	defer d.close(ctx)
	box, err := d.open(ctx, b, sel.last(f.limit))
	if err != nil {
		return err
	}
	there, done, refused, left := 0, 0, 0, 0
	skip := func(item deadletter.Item, why string) bool {
		left++
		fmt.Fprintf(a.stderr, "flogate: dead letter %d stays: %s\n", item.N, clean(why))
		return false
	}
	asked := make(map[string]bool)
	r := deadletter.Redriving{
		Box: box, Idle: f.wait, Headerless: b.Headerless, Timeout: f.timeout,
		Choose: func(item deadletter.Item) bool {
			there = item.N
			switch {
			case !sel.has(item.N) || sel.all && !b.belongs(item, edge):
				return false
			case !b.belongs(item, edge):
				return skip(item, fmt.Sprintf("it is not of this edge, but of %q", item.Edge))
			case omitted(item) != "":
				return skip(item, "its body is "+omitted(item))
			case item.Foreign && f.to == "":
				return skip(item, "no gateway has put it there: --to says where it shall go")
			case f.to == "" && !b.knows(item.Edge):
				return skip(item, fmt.Sprintf("it is of %q, which has no dead letters there: --to says where it shall go", item.Edge))
			}
			return true
		},
		Sink: func(ctx context.Context, l deadletter.Letter) (transport.Publisher, error) {
			at, err := d.sinkOf(ctx, b, l.Edge)
			if err != nil {
				return nil, err
			}
			if key := at.broker + " " + at.Address; !asked[key] {
				asked[key] = true
				ok, why, err := d.confirms(ctx, at)
				if err != nil {
					return nil, err
				}
				if !ok && !f.lossy {
					return nil, transport.Permanentf("%s confirms nothing, so what is sent there can be lost (%s): --yes sends it all the same", clean(key), why)
				}
			}
			return d.publisher(ctx, at)
		},
		Back: func(ctx context.Context) (transport.Publisher, error) {
			return d.publisher(ctx, sinkAt{b.broker, b.Sink()})
		},
		Done: func(item deadletter.Item, cause error) {
			if cause == nil {
				done++
				return
			}
			refused++
			fmt.Fprintf(a.stderr, "flogate: dead letter %d was refused again, and is behind the others now: %s\n", item.N, clean(cause.Error()))
		},
	}
	err = r.Run(ctx)
	full := box.Full()
	err = errors.Join(err, box.Close(ctx))
	fmt.Fprintf(a.stdout, "%s redriven", count(done, "dead letter"))
	if refused > 0 {
		fmt.Fprintf(a.stdout, ", %d refused again", refused)
	}
	if left > 0 {
		fmt.Fprintf(a.stdout, ", %d left", left)
	}
	fmt.Fprintln(a.stdout)
	return a.ended(b, sel, there, full, refused+left, err)
}

// ended is the end of a command that has worked on letters.
func (a *app) ended(b *letterBox, sel selection, there int, full bool, undone int, err error) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", b.broker, b.Address, err)
	}
	if missing := sel.missing(there); len(missing) > 0 {
		return fmt.Errorf("%s %s has no dead letter %s: it had %d%s", b.broker, b.Address, strings.Join(missing, ", "), there, b.silent(there))
	}
	if sel.all && b.silent(there) != "" {
		fmt.Fprintf(a.stderr, "flogate: %s %s%s\n", b.broker, b.Address, b.silent(there))
	}
	if sel.all && (full || b.fleeting && there >= handedOut) {
		fmt.Fprintf(a.stderr, "flogate: there may be more: do it again to see\n")
	}
	if undone > 0 {
		return fmt.Errorf("%s could not be redriven", count(undone, "dead letter"))
	}
	return nil
}

func (a *app) deadDropCommand() *cobra.Command {
	var f deadFlags
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "drop [EDGE] [N…]",
		Short: "Forget dead letters for good",
		Long:  `Takes dead letters out of their place for good. It asks before, or wants --yes.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := f.selection(args, all)
			if err != nil {
				return err
			}
			return a.deadDrop(cmd.Context(), &f, sel, yes)
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all that are there, up to --limit")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) deadDrop(ctx context.Context, f *deadFlags, sel selection, yes bool) error {
	d, b, edge, err := a.openChosen(ctx, f, sel)
	if err != nil {
		return err
	}
	defer d.close(ctx)
	if !yes {
		of := ""
		if edge != "" {
			of = " of " + edge
		}
		if err := a.confirm(fmt.Sprintf("Drop %s%s at %s %s for good?", sel, of, b.broker, b.Address)); err != nil {
			return err
		}
	}
	box, err := d.open(ctx, b, sel.last(f.limit))
	if err != nil {
		return err
	}
	there, dropped := 0, 0
	err = each(ctx, box, f.wait, func(item deadletter.Item) error {
		there = item.N
		switch {
		case !sel.has(item.N) || sel.all && !b.belongs(item, edge):
			return nil
		case !b.belongs(item, edge):
			return fmt.Errorf("dead letter %d is not of this edge, but of %q", item.N, item.Edge)
		}
		if err := box.Take(ctx, item); err != nil {
			return err
		}
		dropped++
		return nil
	})
	full := box.Full()
	err = errors.Join(err, box.Close(ctx))
	fmt.Fprintf(a.stdout, "%s dropped\n", count(dropped, "dead letter"))
	return a.ended(b, sel, there, full, 0, err)
}

// confirm asks on the terminal.
func (a *app) confirm(question string) error {
	in, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) || !isTerminal(a.stderr) {
		return usagef("%s Say --yes: there is no terminal to ask on", question)
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", clean(question))
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || !strings.EqualFold(strings.TrimSpace(answer), "y") && !strings.EqualFold(strings.TrimSpace(answer), "yes") {
		return errors.New("nothing was dropped")
	}
	return nil
}

// liveStatus asks the gateway of a site.
func liveStatus(ctx context.Context, address string) (admin.Status, error) {
	var s admin.Status
	body, err := fetchStatus(ctx, address)
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}
