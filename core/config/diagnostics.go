package config

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// Severity says how bad a diagnostic is.
type Severity string

// The severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Diagnostic is one thing that is wrong, or looks wrong, in the files of a site.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	// Summary is a few words.
	Summary string `json:"summary"`
	// Detail is a sentence or two: what is wrong and what to do.
	Detail string `json:"detail,omitempty"`
	// Where is the place. Its File is empty where there is none.
	Where Range `json:"where,omitzero"`
}

// Range is a part of a file. Lines and columns count from 1, columns in characters; the end is exclusive.
type Range struct {
	File  string   `json:"file"`
	Start Position `json:"start"`
	End   Position `json:"end"`
}

// Position is a place in a file.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// Diagnostics is everything that was found in one load, in the order of the files and of the lines in them.
type Diagnostics struct {
	// List holds errors and warnings.
	List []Diagnostic
	// Files are the absolute paths of the files that were read, or would have been had they been there: what to watch
	// for the next load to give something else.
	Files []string

	// A pointer: fmt prints its address, and not what is secret in it.
	*texts
}

// texts are the files that diagnostics are about, and what of them must not be shown.
type texts struct {
	// sources are the texts by the names that ranges have, order is in which they were read.
	sources map[string][]byte
	order   []string
	// hidden are the parts of files that hold secrets, words are the secrets.
	hidden []Range
	words  []string
}

func newDiagnostics() *Diagnostics {
	return &Diagnostics{texts: &texts{sources: map[string][]byte{}}}
}

// HasErrors says that there is no site.
func (d *Diagnostics) HasErrors() bool { return d.Count(Error) > 0 }

// Count returns how many there are of a severity.
func (d *Diagnostics) Count(s Severity) int {
	n := 0
	for _, one := range d.List {
		if one.Severity == s {
			n++
		}
	}
	return n
}

// Write prints the diagnostics for people, each with the line of the file that it is about. Colour is for terminals.
func (d *Diagnostics) Write(w io.Writer, colour bool) error {
	var b bytes.Buffer
	for i, one := range d.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		d.render(&b, one, colour)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (d *Diagnostics) render(b *bytes.Buffer, one Diagnostic, colour bool) {
	bold, hue, reset := "", "", ""
	if colour {
		bold, hue, reset = "\x1b[1m", "\x1b[31m", "\x1b[0m"
		if one.Severity == Warning {
			hue = "\x1b[33m"
		}
	}
	at := one.Where.Start
	if one.Where.File != "" {
		fmt.Fprintf(b, "%s%s:", bold, printable(one.Where.File))
		if at.Line > 0 {
			fmt.Fprintf(b, "%d:%d:", at.Line, at.Column)
		}
		fmt.Fprintf(b, "%s ", reset)
	}
	fmt.Fprintf(b, "%s%s:%s %s%s%s\n", hue, one.Severity, reset, bold, printable(one.Summary), reset)
	if text, from, to, ok := d.line(one.Where); ok {
		number := fmt.Sprint(at.Line)
		fmt.Fprintf(b, "%s | %s\n", number, text)
		fmt.Fprintf(b, "%s | %s%s%s%s\n", strings.Repeat(" ", len(number)), indent(text, from), hue,
			strings.Repeat("^", max(1, to-from)), reset)
	}
	if one.Detail != "" {
		fmt.Fprintf(b, "%s\n", printable(one.Detail))
	}
}

// longest is how much of a line is shown, in characters.
const longest = 160

// line returns the first line of a range without what is secret in it, and the part of the line to point at, in
// characters from 0.
func (d *Diagnostics) line(r Range) (text string, from, to int, ok bool) {
	if d.texts == nil {
		return "", 0, 0, false
	}
	src, ok := d.sources[r.File]
	if !ok || r.Start.Line < 1 {
		return "", 0, 0, false
	}
	lines := bytes.Split(src, []byte("\n"))
	if r.Start.Line > len(lines) {
		return "", 0, 0, false
	}
	line := []rune(strings.ToValidUTF8(strings.TrimSuffix(string(lines[r.Start.Line-1]), "\r"), "?"))
	from, to = r.Start.Column-1, len(line)
	if r.End.Line == r.Start.Line {
		to = r.End.Column - 1
	}
	from = min(max(from, 0), len(line))
	to = min(max(to, from), len(line))

	cuts := d.cuts(r.File, r.Start.Line, line)
	for _, c := range slices.Backward(cuts) {
		mark := []rune(redacted)
		line = slices.Concat(line[:c.from], mark, line[c.to:])
		from, to = c.shift(from, len(mark), false), c.shift(to, len(mark), true)
	}
	if len(line) > longest {
		// Keep what is pointed at in sight.
		if start := min(max(0, from-longest/2), len(line)-longest); start > 0 {
			line = slices.Concat([]rune("…"), line[start+1:])
			from, to = from-start, to-start
		}
		if len(line) > longest {
			line = append(line[:longest:longest], '…')
		}
		to = min(to, len(line))
	}
	for i, c := range line {
		if c != '\t' && !visible(c) {
			line[i] = '?'
		}
	}
	return string(line), from, max(to, from), true
}

// cut is a part of a line that is not shown.
type cut struct{ from, to int }

// shift moves a position for a cut having been replaced by n characters. Inside of the cut it goes to one of its ends.
func (c cut) shift(at, n int, end bool) int {
	switch {
	case at <= c.from:
		return at
	case at >= c.to:
		return at - (c.to - c.from) + n
	case end:
		return c.from + n
	}
	return c.from
}

// Secrets that no schema has told us of, because the file could not be parsed so far: the password in a URL, and what is
// given to a name that sounds like it.
var (
	urlPassword = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/@"']*:([^\s/"']+)@`)
	secretName  = regexp.MustCompile(`(?i)["']?[\w-]*(?:password|passwd|passphrase|secret|token|credential|private_?key|api_?key)[\w-]*["']?\s*[=:]\s*([^\s].*)`)
)

// cuts returns the secret parts of a line, in order, without overlap, in characters.
func (d *Diagnostics) cuts(file string, number int, line []rune) []cut {
	var cuts []cut
	text := string(line)
	for _, expr := range []*regexp.Regexp{urlPassword, secretName} {
		for _, m := range expr.FindAllStringSubmatchIndex(text, -1) {
			if value := text[m[2]:m[3]]; strings.HasPrefix(value, "env(") || strings.HasPrefix(value, "file(") {
				continue
			}
			cuts = append(cuts, cut{utf8.RuneCountInString(text[:m[2]]), utf8.RuneCountInString(text[:m[3]])})
		}
	}
	for _, word := range d.words {
		for at := 0; ; {
			i := strings.Index(text[at:], word)
			if i < 0 {
				break
			}
			from := utf8.RuneCountInString(text[:at+i])
			cuts = append(cuts, cut{from, from + utf8.RuneCountInString(word)})
			at += i + len(word)
		}
	}
	for _, h := range d.hidden {
		if h.File != file || number < h.Start.Line || number > h.End.Line {
			continue
		}
		c := cut{0, len(line)}
		if number == h.Start.Line {
			c.from = min(h.Start.Column-1, len(line))
		}
		if number == h.End.Line {
			c.to = min(h.End.Column-1, len(line))
		}
		if c.from < c.to {
			cuts = append(cuts, c)
		}
	}
	slices.SortFunc(cuts, func(a, b cut) int { return cmp.Compare(a.from, b.from) })
	merged := cuts[:0]
	for _, c := range cuts {
		if n := len(merged); n > 0 && c.from <= merged[n-1].to {
			merged[n-1].to = max(merged[n-1].to, c.to)
			continue
		}
		merged = append(merged, c)
	}
	return merged
}

// indent returns the white space that is as wide as the first characters of a line.
func indent(line string, n int) string {
	var b strings.Builder
	for _, c := range line {
		if n == 0 {
			break
		}
		if c != '\t' {
			c = ' '
		}
		b.WriteRune(c)
		n--
	}
	return b.String()
}

// printable keeps what others wrote (a plugin, a file) from steering the terminal.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c != '\n' && !visible(c) {
			return '?'
		}
		return c
	}, s)
}

func visible(c rune) bool { return c >= ' ' && c != 0x7f && (c < 0x80 || c > 0x9f) }

// add appends a diagnostic.
func (d *Diagnostics) add(s Severity, where hcl.Range, summary, detail string, args ...any) {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	d.List = append(d.List, Diagnostic{Severity: s, Summary: summary, Detail: detail, Where: ourRange(where)})
}

// sentence makes a sentence of an error's text.
func sentence(text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + ended(text[size:])
}

// ended puts a full stop where none is.
func ended(text string) string {
	if strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?") || strings.HasSuffix(text, "!") {
		return text
	}
	return text + "."
}

// addHCL appends what HCL found.
func (d *Diagnostics) addHCL(diags hcl.Diagnostics) {
	for _, one := range diags {
		s := Error
		if one.Severity == hcl.DiagWarning {
			s = Warning
		}
		var where hcl.Range
		if one.Subject != nil {
			where = *one.Subject
		}
		d.add(s, where, one.Summary, "%s", one.Detail)
	}
}

// hide keeps a part of a file from being printed.
func (d *Diagnostics) hide(where hcl.Range) { d.hidden = append(d.hidden, ourRange(where)) }

// shortest is the length in bytes from which on a secret is looked for in texts. Shorter ones are found in every other
// word, and taking them out would make the texts unreadable without keeping anything secret.
const shortest = 4

// hideWord keeps a text from being printed.
func (d *Diagnostics) hideWord(word string) {
	if len(word) >= shortest {
		d.words = append(d.words, word)
	}
	// A text of several lines could be quoted line by line.
	if strings.Contains(word, "\n") {
		for line := range strings.SplitSeq(word, "\n") {
			if line = strings.TrimSpace(line); len(line) >= 2*shortest {
				d.words = append(d.words, line)
			}
		}
	}
}

// finish takes secrets out, sorts, and drops what was said twice.
func (d *Diagnostics) finish() {
	slices.SortFunc(d.words, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	d.words = slices.Compact(d.words)
	for i := range d.List {
		d.List[i].Summary = d.scrub(d.List[i].Summary)
		d.List[i].Detail = d.scrub(d.List[i].Detail)
	}
	rank := make(map[string]int, len(d.order))
	for i, name := range d.order {
		rank[name] = i + 1
	}
	slices.SortStableFunc(d.List, func(a, b Diagnostic) int {
		return cmp.Or(
			cmp.Compare(rank[a.Where.File], rank[b.Where.File]),
			cmp.Compare(a.Where.Start.Line, b.Where.Start.Line),
			cmp.Compare(a.Where.Start.Column, b.Where.Start.Column),
		)
	})
	d.List = slices.Compact(d.List)
}

func (d *Diagnostics) scrub(s string) string {
	for _, word := range d.words {
		s = strings.ReplaceAll(s, word, redacted)
	}
	return s
}

func (d *Diagnostics) source(name string, src []byte) {
	if _, ok := d.sources[name]; !ok {
		d.order = append(d.order, name)
	}
	d.sources[name] = src
}

func ourRange(r hcl.Range) Range {
	return Range{
		File:  r.Filename,
		Start: Position{r.Start.Line, r.Start.Column},
		End:   Position{r.End.Line, r.End.Column},
	}
}

// didYouMean returns a sentence with the name that was probably meant, with a blank before it, or nothing.
func didYouMean(given string, names []string) string {
	best, distance := "", 3
	for _, name := range names {
		if n := editDistance(given, name); n < distance && n < len(given) {
			best, distance = name, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" Did you mean %q?", best)
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours between two names.
func editDistance(a, b string) int {
	s, t := []rune(a), []rune(b)
	if max(len(s), len(t)) > 200 {
		return 200
	}
	rows := make([][]int, len(s)+1)
	for i := range rows {
		rows[i] = make([]int, len(t)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(s); i++ {
		for j := 1; j <= len(t); j++ {
			change := 1
			if s[i-1] == t[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(s)][len(t)]
}
