package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// line is a sample in one line, for whoever watches.
func (s sample) line() string {
	head := fmt.Sprintf("%-34s %-10s", s.Cell, s.Variant)
	if s.Error != "" {
		return head + " failed: " + s.Error
	}
	return fmt.Sprintf("%s %7.0f/s  p50 %7s p99 %7s ms  CPU %s µs  lost %d doubled %d disordered %d  others %.0f%%",
		head, s.Throughput, ms(s.P50), ms(s.P99), parts(s.CPU), s.Lost, s.Doubled, s.Disorder, 100*s.Others)
}

func (s startup) line() string {
	head := fmt.Sprintf("%-34s %-10s", "start "+s.Edge, s.Variant)
	if s.Error != "" {
		return head + " failed: " + s.Error
	}
	return fmt.Sprintf("%s first message after %s ms, idle RSS %s MiB, PSS %s MiB", head, ms(s.First), parts(mib(s.RSS)), parts(mib(s.PSS)))
}

func mib(bytes map[string]int64) map[string]float64 {
	out := make(map[string]float64, len(bytes))
	for name, n := range bytes {
		out[name] = float64(n) / (1 << 20)
	}
	return out
}

func ms(d time.Duration) string { return short(float64(d) / float64(time.Millisecond)) }

// short is a number in three digits or so.
func short(f float64) string {
	switch {
	case math.IsNaN(f):
		return "–"
	case f >= 100 || f == 0:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// parts is a sum with its parts: 61 = core 30 + mqtt 31.
func parts(of map[string]float64) string {
	text := fmt.Sprintf("%.0f", sum(of))
	if len(of) < 2 {
		return text
	}
	// The core first.
	names := slices.SortedFunc(maps.Keys(of), func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(b, "core"), strings.Count(a, "core")), cmp.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %.0f", name, of[name])
	}
	return text + " = " + strings.Join(names, " + ")
}

func sum(of map[string]float64) float64 {
	var total float64
	for _, v := range of {
		total += v
	}
	return total
}

// row is one variant of one cell over all rounds.
type row struct {
	throughput, p50, p99, cpu []float64 // of each round that did not fail; ms and µs
	partCPU                   map[string][]float64
	rss                       []float64 // MiB
	others                    []float64
	lost, doubled, disorder   int // the worst round
	failed                    string
}

// rows gathers samples by cell and variant. cells is in the order in which they were measured.
func (r *results) rows() (cells []string, rows map[string]map[string]*row) {
	rows = make(map[string]map[string]*row)
	for _, s := range r.Samples {
		if rows[s.Cell] == nil {
			rows[s.Cell] = make(map[string]*row)
			cells = append(cells, s.Cell)
		}
		x := rows[s.Cell][s.Variant]
		if x == nil {
			x = &row{partCPU: make(map[string][]float64)}
			rows[s.Cell][s.Variant] = x
		}
		if s.Error != "" {
			x.failed = s.Error
			continue
		}
		x.throughput = append(x.throughput, s.Throughput)
		x.p50 = append(x.p50, float64(s.P50)/float64(time.Millisecond))
		x.p99 = append(x.p99, float64(s.P99)/float64(time.Millisecond))
		x.cpu = append(x.cpu, sum(s.CPU))
		for name, cpu := range s.CPU {
			x.partCPU[name] = append(x.partCPU[name], cpu)
		}
		x.rss = append(x.rss, sum(mib(s.RSS)))
		x.others = append(x.others, s.Others)
		x.lost, x.doubled, x.disorder = max(x.lost, s.Lost), max(x.doubled, s.Doubled), max(x.disorder, s.Disorder)
	}
	return cells, rows
}

// medians of the parts of the CPU time.
func (x *row) parts() map[string]float64 {
	m := make(map[string]float64, len(x.partCPU))
	for name, values := range x.partCPU {
		m[name] = medianFloat(values)
	}
	return m
}

func (x *row) wrong() string {
	if x.lost == 0 && x.doubled == 0 && x.disorder == 0 {
		return "0"
	}
	return fmt.Sprintf("%d, %d, %d", x.lost, x.doubled, x.disorder)
}

// against returns the median of the ratios to another variant in the same round: what drifts from round to round is in both.
// Without a round that both have it is the ratio of their medians.
func (r *results) against(cell string, v, other variant, of func(sample) float64) float64 {
	values := func(v variant) (inRound map[int]float64, all []float64) {
		inRound = make(map[int]float64)
		for _, s := range r.Samples {
			if s.Cell == cell && s.Variant == string(v) && s.Error == "" {
				inRound[s.Round] = of(s)
				all = append(all, of(s))
			}
		}
		return inRound, all
	}
	mine, all := values(v)
	base, allBase := values(other)
	var ratios []float64
	for round, n := range mine {
		if b := base[round]; b > 0 {
			ratios = append(ratios, ratio(n, b))
		}
	}
	if len(ratios) == 0 {
		return ratio(medianFloat(all), medianFloat(allBase))
	}
	return medianFloat(ratios)
}

func throughputOf(s sample) float64 { return s.Throughput }
func p50Of(s sample) float64        { return float64(s.P50) }
func cpuOf(s sample) float64        { return sum(s.CPU) }

// table is a heading with lines, the first of which says what is in the columns.
type table struct {
	title string
	lines [][]string
}

// tables are one for each rate, and one of starts.
func (r *results) tables() []table {
	var all []table
	cells, rows := r.rows()
	for _, c := range cells {
		// A cell's name is that of the edge, the size in two words, and the rate.
		words := strings.Fields(c)
		rate := words[len(words)-1]
		i := slices.IndexFunc(all, func(t table) bool { return t.title == rate })
		if i < 0 {
			i = len(all)
			all = append(all, table{rate, [][]string{saturatedColumns()}})
			if rate != rateName(0) {
				all[i].lines[0] = steadyColumns()
			}
		}
		name := strings.Join(words[:len(words)-1], " ")
		for _, v := range allVariants() {
			x := rows[c][string(v)]
			switch {
			case x == nil:
				continue
			case len(x.throughput) == 0:
				all[i].lines = append(all[i].lines, []string{name, string(v), "failed: " + x.failed})
			case rate == rateName(0):
				all[i].lines = append(all[i].lines, r.saturated(c, name, v, x))
			default:
				all[i].lines = append(all[i].lines, r.steady(c, name, v, x))
			}
		}
	}
	if lines := r.starts(); len(lines) > 1 {
		all = append(all, table{"start and idle memory", lines})
	}
	if lines := r.floods(); len(lines) > 1 {
		all = append(all, table{"10,000 announcements a second", lines})
	}
	return all
}

func saturatedColumns() []string {
	return []string{
		"edge", "variant", "msg/s", "±", "to hand", "to coalesced", "CPU µs/msg", "to hand", "RSS MiB", "lost, doubled, disordered", "others",
	}
}

func (r *results) saturated(c, name string, v variant, x *row) []string {
	return []string{
		name, string(v), fmt.Sprintf("%.0f", medianFloat(x.throughput)), percent(spread(x.throughput)),
		short(r.against(c, v, hand, throughputOf)), short(r.against(c, v, coalesced, throughputOf)),
		parts(x.parts()), short(r.against(c, v, hand, cpuOf)), short(medianFloat(x.rss)), x.wrong(), percent(medianFloat(x.others)),
	}
}

func steadyColumns() []string {
	return []string{
		"edge", "variant", "msg/s", "p50 ms", "±", "to hand", "p99 ms", "CPU µs/msg", "to hand", "RSS MiB", "lost, doubled, disordered", "others",
	}
}

func (r *results) steady(c, name string, v variant, x *row) []string {
	return []string{
		name, string(v), fmt.Sprintf("%.0f", medianFloat(x.throughput)),
		short(medianFloat(x.p50)), percent(spread(x.p50)), short(r.against(c, v, hand, p50Of)), short(medianFloat(x.p99)),
		parts(x.parts()), short(r.against(c, v, hand, cpuOf)), short(medianFloat(x.rss)), x.wrong(), percent(medianFloat(x.others)),
	}
}

func percent(part float64) string { return fmt.Sprintf("%.0f%%", 100*part) }

func (r *results) starts() [][]string {
	lines := [][]string{{"edge", "variant", "start to first message, ms", "±", "idle RSS MiB", "idle PSS MiB"}}
	type key struct{ edge, variant string }
	var keys []key
	first, rss, pss := make(map[key][]float64), make(map[key]map[string][]float64), make(map[key]map[string][]float64)
	add := func(to map[key]map[string][]float64, k key, values map[string]float64) {
		if to[k] == nil {
			to[k] = make(map[string][]float64)
		}
		for name, v := range values {
			to[k][name] = append(to[k][name], v)
		}
	}
	for _, s := range r.Starts {
		k := key{s.Edge, s.Variant}
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
		if s.Error != "" {
			continue
		}
		first[k] = append(first[k], float64(s.First)/float64(time.Millisecond))
		add(rss, k, mib(s.RSS))
		add(pss, k, mib(s.PSS))
	}
	for _, k := range keys {
		lines = append(lines, []string{
			k.edge, k.variant, short(medianFloat(first[k])), percent(spread(first[k])),
			parts((&row{partCPU: rss[k]}).parts()), parts((&row{partCPU: pss[k]}).parts()),
		})
	}
	return lines
}

// text prints everything, a line for each variant of each cell.
func (r *results) text(w io.Writer) {
	for _, t := range r.tables() {
		fmt.Fprintf(w, "%s\n", t.title)
		columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, line := range t.lines {
			fmt.Fprintln(columns, strings.Join(line, "\t"))
		}
		_ = columns.Flush() // an output that takes nothing more is not worth a word
		fmt.Fprintln(w)
	}
}

// markdown prints the same in Markdown.
func (r *results) markdown(w io.Writer) {
	for _, t := range r.tables() {
		fmt.Fprintf(w, "### %s\n\n", t.title)
		for i, line := range t.lines {
			fmt.Fprintf(w, "| %s |\n", strings.Join(line, " | "))
			if i == 0 {
				fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", len(line)))
			}
		}
		fmt.Fprintln(w)
	}
}
