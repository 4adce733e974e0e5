package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/flogate/flogate/core/admin"
)

// flood is what became of a gateway that was told far too much of participants.
type flood struct {
	Edge    string       `json:"edge"`
	Variant string       `json:"variant"`
	Round   int          `json:"round"`
	Phases  []floodPhase `json:"phases"`
	// Sent is how many announcements the broker was given, Discovery what the gateway has counted.
	Sent      int             `json:"sent"`
	Discovery admin.Discovery `json:"discovery"`
	Lost      int             `json:"lost"` // messages of the edge, and those that came twice or out of order
	Error     string          `json:"error,omitempty"`
}

// floodPhase is a time in which the gateway was looked at.
type floodPhase struct {
	Name string             `json:"name"`
	CPU  map[string]float64 `json:"cpu"` // of one CPU, by process
	RSS  map[string]int64   `json:"rss"` // bytes, by process, at the end
	P50  time.Duration      `json:"p50"` // of the edge
	P99  time.Duration      `json:"p99"`
	Log  int64              `json:"log"` // bytes that the gateway has printed
	// Others is the part of the machine's CPU time that had nothing to do with this.
	Others float64 `json:"others"`
}

const (
	floodRate  = 10_000 // announcements a second
	floodTime  = 10 * time.Second
	floodCalm  = 3 * time.Second // how long before and after it is looked
	floodRest  = 2 * time.Second // between its end and looking
	edgeRate   = 100             // messages a second on the edge that must not notice
	floodKnown = 50              // participants that repeat themselves
)

// announcementOf returns announcement i: the half are malformed in several ways, a fourth repeat what is known letter for
// letter, and a fourth are of participants that nobody has heard of.
func announcementOf(i int) []byte {
	good := func(id string) []byte {
		return fmt.Appendf(nil, `{"protocol":"discovery","command":"participant","payload":{"component":"flood/Part","icon":"cog","label":"One of many",`+
			`"inports":[{"id":"in","type":"any","hidden":false,"queue":"%[1]s.IN"}],"outports":[{"id":"out","type":"any","hidden":false,"queue":"%[1]s.OUT"}],`+
			`"role":"%[1]s","id":"%[1]s-f2a0c1de"}}`, id)
	}
	bad := []string{
		`{"protocol":"discovery","command":"participant","payload":{"id":"%d`,
		`{"protocol":"discovery","command":"participant","payload":{"id":%d,"role":"x","component":"c","inports":[],"outports":[]}}`,
		`{"id":"a%d","role":"b"}`,
		`{"id":"a","role":"b","component":"c","inports":[{"id":"in","queue":%d}],"outports":[]}`,
		"not JSON %d at all",
		`[%d]`,
		`{"id":"a","role":"b","component":"c","heartbeat":-%d,"inports":[],"outports":[]}`,
		"\xff\xfe %d",
	}
	switch i % 4 {
	case 0, 1:
		return fmt.Appendf(nil, bad[i/2%len(bad)], i+1)
	case 2:
		return good(fmt.Sprintf("known%d", i/4%floodKnown))
	}
	return good(fmt.Sprintf("new%d", i))
}

func (s *settings) flood(ctx context.Context, e edge, v variant) flood {
	out := flood{Edge: e.name(), Variant: string(v)}
	if err := s.pour(ctx, e, v, &out); err != nil {
		out.Error = err.Error()
	}
	return out
}

func (s *settings) pour(ctx context.Context, e edge, v variant, out *flood) (err error) {
	x, err := s.open(ctx, e, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	m, f := x.meter, x.feeder
	adminAddress, err := freeAddress()
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, x.from.address+".hcl")
	text := fmt.Sprintf("listen {\n  admin = %q\n}\n%s", adminAddress, site(v, x.from, x.to))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	c, err := launch(ctx, func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, s.program, "--config", path) })
	if err != nil {
		return err
	}
	defer c.stop()
	if err := c.await(ctx, f, m); err != nil {
		return err
	}
	announcements, err := place{kind: x.from.kind, url: x.from.url, address: "fbp"}.feed(false)
	if err != nil {
		return err
	}
	defer announcements.close()
	for i := range floodKnown { // who is known before
		if err := announcements.publish(announcementOf(4*i + 2)); err != nil {
			return err
		}
	}
	if err := counted(ctx, adminAddress, &out.Discovery); err != nil {
		return err
	}
	known := out.Discovery

	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	type loaded struct {
		sent uint64
		err  error
	}
	done := make(chan loaded, 1)
	go func() {
		sent, err := load{feeder: f, meter: m, size: 100, rate: edgeRate}.run(loading)
		done <- loaded{sent, err}
	}()
	look := func(name string, during func() error) error {
		phase, err := c.look(name, m, during)
		out.Phases = append(out.Phases, phase)
		return err
	}
	calm := func() error { wait(ctx, floodCalm); return ctx.Err() }
	if err := look("before", calm); err != nil {
		return err
	}
	err = look("during", func() error {
		var err error
		out.Sent, err = steadily(ctx, announcements)
		return err
	})
	if err != nil {
		return err
	}
	wait(ctx, floodRest)
	if err := look("after", calm); err != nil {
		return err
	}
	// Not before: the answer has all that the gateway knows of thousands of participants.
	if err := counted(ctx, adminAddress, &out.Discovery); err != nil {
		return err
	}
	stopLoad()
	l := <-done
	if l.err != nil {
		return fmt.Errorf("send: %w", l.err)
	}
	m.drain(ctx, l.sent)
	came, doubled, disorder := m.counts()
	out.Lost = int(l.sent-came) + doubled + disorder
	out.Discovery.Messages -= known.Messages
	out.Discovery.Repeated -= known.Repeated
	return ctx.Err()
}

// steadily pours announcements at their rate and returns how many.
func steadily(ctx context.Context, to feeder) (int, error) {
	runtime.LockOSThread() // nap sleeps on it
	defer runtime.UnlockOSThread()
	begin := time.Now()
	for i := range floodRate * int(floodTime/time.Second) {
		at := time.Duration(i) * time.Second / floodRate
		for now := time.Since(begin); now < at; now = time.Since(begin) {
			nap(min(at-now, 10*time.Millisecond))
		}
		if ctx.Err() != nil {
			return i, ctx.Err()
		}
		if err := to.publish(announcementOf(i)); err != nil {
			return i, err
		}
	}
	return floodRate * int(floodTime/time.Second), nil
}

// look measures the carrier and its edge while something happens.
func (c *carrier) look(name string, m *meter, during func() error) (floodPhase, error) {
	phase := floodPhase{Name: name, CPU: make(map[string]float64), RSS: make(map[string]int64)}
	before, err := family(c.pid)
	if err != nil {
		return phase, errors.Join(err, c.running())
	}
	printed, busy, begin := c.output.total(), lookBusy(), time.Now()
	m.measure(true)
	err = during()
	m.measure(false)
	elapsed := time.Since(begin)
	after, familyErr := family(c.pid)
	if err != nil || familyErr != nil {
		return phase, errors.Join(err, familyErr, c.running())
	}
	for name, cpu := range used(before, after) {
		phase.CPU[name] = cpu.Seconds() / elapsed.Seconds()
	}
	for _, p := range after {
		phase.RSS[p.name] += p.rss
	}
	phase.P50, phase.P99 = m.quantiles()
	phase.Log = c.output.total() - printed
	phase.Others = lookBusy().others(busy)
	return phase, nil
}

// standing is for how long counts do not change when there is nothing left to count.
const standing = time.Second

// counted waits until the gateway counts no more announcements, and returns its counts.
func counted(ctx context.Context, address string, last *admin.Discovery) error {
	moved := time.Now()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); wait(ctx, standing/4) {
		d, err := discoveryAt(ctx, address)
		if err != nil {
			return err
		}
		if d != *last {
			*last, moved = d, time.Now()
		}
		if time.Since(moved) > standing {
			return nil
		}
	}
	return errors.New("it counts for ever")
}

// discoveryAt sums the gateway's counts over its brokers.
func discoveryAt(ctx context.Context, address string) (admin.Discovery, error) {
	var d admin.Discovery
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status", nil)
	if err != nil {
		return d, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return d, err
	}
	defer resp.Body.Close()
	var s struct {
		Discovery []admin.Discovery `json:"discovery"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return d, fmt.Errorf("status: %w", err)
	}
	for _, b := range s.Discovery {
		d.Messages += b.Messages
		d.Repeated += b.Repeated
		d.Malformed += b.Malformed
		d.Dropped += b.Dropped
	}
	return d, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// line is a flood in one line, for whoever watches.
func (f flood) line() string {
	head := fmt.Sprintf("%-34s %-10s", "flood "+f.Edge, f.Variant)
	if f.Error != "" {
		return head + " failed: " + f.Error
	}
	for _, p := range f.Phases {
		head += fmt.Sprintf(" %s: CPU %s%% RSS %s p99 %s ms log %d B;", p.Name, parts(percents(p.CPU)), parts(mib(p.RSS)), ms(p.P99), p.Log)
	}
	return head + fmt.Sprintf(" of %d: %+v; lost %d", f.Sent, f.Discovery, f.Lost)
}

func percents(of map[string]float64) map[string]float64 {
	out := make(map[string]float64, len(of))
	for name, part := range of {
		out[name] = 100 * part
	}
	return out
}

// floods are the lines of a table.
func (r *results) floods() [][]string {
	lines := [][]string{{
		"edge", "variant", "", "CPU % of one", "RSS MiB", "p50 ms", "p99 ms", "log bytes", "others",
	}}
	for _, f := range r.Floods {
		for _, p := range f.Phases {
			lines = append(lines, []string{
				f.Edge, f.Variant, p.Name, parts(percents(p.CPU)), parts(mib(p.RSS)), ms(p.P50), ms(p.P99), fmt.Sprint(p.Log), percent(p.Others),
			})
		}
		lines = append(lines, []string{f.Edge, f.Variant, f.outcome()})
	}
	return lines
}

func (f flood) outcome() string {
	if f.Error != "" {
		return "failed: " + f.Error
	}
	d := f.Discovery
	return fmt.Sprintf("of %d: heard %d, repeated %d, malformed %d, no room %d; lost, doubled or disordered on the edge: %d",
		f.Sent, d.Messages, d.Repeated, d.Malformed, d.Dropped, f.Lost)
}
