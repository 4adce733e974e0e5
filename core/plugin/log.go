package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"
)

// Bounds of what a plugin may put into the log.
const (
	maxLine  = 8 << 10 // bytes of a line; the rest of it is dropped
	maxAttrs = 20      // attributes of a line
	maxKey   = 64      // bytes of a key
	maxValue = 1 << 10 // bytes of a value or a text
	// Lines in a second, and at once.
	lineRate  = 100
	lineBurst = 1000
)

// lines makes log lines of what a plugin prints. All methods may be called concurrently.
type lines struct {
	log *slog.Logger

	mu      sync.Mutex
	limit   *rate.Limiter
	dropped int
	parts   []*part
	words   string // the last line that was not just information
	panics  bool   // a stack trace has begun
}

// part is one stream of a plugin's output, cut into lines.
type part struct {
	lines  *lines
	stream string
	buf    []byte
	skip   bool // until the end of the line, which is too long
}

func newLines(log *slog.Logger) *lines {
	return &lines{log: log, limit: rate.NewLimiter(lineRate, lineBurst)}
}

// writer returns a writer for one stream of output. It never fails.
func (l *lines) writer(stream string) io.Writer {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &part{lines: l, stream: stream}
	l.parts = append(l.parts, p)
	return p
}

// Write implements [io.Writer].
func (p *part) Write(b []byte) (int, error) {
	p.lines.mu.Lock()
	defer p.lines.mu.Unlock()
	n := len(b)
	for len(b) > 0 {
		line, rest, complete := bytes.Cut(b, []byte{'\n'})
		b = rest
		if !p.skip {
			room := maxLine - len(p.buf)
			p.buf = append(p.buf, line[:min(len(line), room)]...)
			if len(line) > room {
				p.buf = append(p.buf, "…"...)
				p.skip = true
			}
		}
		if complete {
			p.end()
		}
	}
	return n, nil
}

// end logs the line in buf.
func (p *part) end() {
	line := p.buf
	p.buf, p.skip = p.buf[:0], false
	if len(bytes.TrimSpace(line)) > 0 {
		p.lines.write(p.stream, line)
	}
}

// flush logs lines that have no end, and how many were dropped.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.parts {
		p.end()
	}
	l.tellDropped()
}

// last returns the last thing of importance that the plugin has said.
func (l *lines) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.words
}

func (l *lines) tellDropped() {
	if l.dropped > 0 {
		l.log.Warn("plugin log lines dropped", "count", l.dropped)
		l.dropped = 0
	}
}

// write logs one line. A line that is none of ours is never parsed by anything but encoding/json.
func (l *lines) write(stream string, line []byte) {
	level, text, attrs := l.parse(stream, line)
	if level >= slog.LevelWarn && (!l.panics || strings.HasPrefix(text, "panic: ")) {
		l.words = clip(text, 300)
	}
	if !l.limit.Allow() {
		l.dropped++
		return
	}
	l.tellDropped()
	l.log.LogAttrs(context.Background(), level, "plugin log", append([]slog.Attr{slog.String("text", text)}, attrs...)...)
}

func (l *lines) parse(stream string, line []byte) (slog.Level, string, []slog.Attr) {
	if stream == "stderr" && line[0] == '{' {
		if level, text, attrs, ok := parseJSON(line); ok {
			return level, text, attrs
		}
	}
	text := clean(string(line), maxValue)
	if stream != "stderr" {
		return slog.LevelInfo, text, nil
	}
	for prefix, level := range map[string]slog.Level{
		"[TRACE]": slog.LevelDebug, "[DEBUG]": slog.LevelDebug, "[INFO]": slog.LevelInfo, "[WARN]": slog.LevelWarn, "[ERROR]": slog.LevelError,
	} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			return level, strings.TrimSpace(rest), nil
		}
	}
	if strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ") {
		l.words = clip(text, 300)
		l.panics = true
	}
	if l.panics {
		return slog.LevelError, text, nil
	}
	return slog.LevelInfo, text, nil
}

// parseJSON reads a line as pluginmain and hashicorp/go-hclog write them.
func parseJSON(line []byte) (slog.Level, string, []slog.Attr, bool) {
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil {
		return 0, "", nil, false
	}
	message, ok := fields["@message"].(string)
	if !ok {
		return 0, "", nil, false
	}
	level := slog.LevelInfo
	if s, ok := fields["@level"].(string); ok {
		switch s {
		case "trace", "debug":
			level = slog.LevelDebug
		case "warn":
			level = slog.LevelWarn
		case "error":
			level = slog.LevelError
		}
	}
	var attrs []slog.Attr
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		if k == "@message" || k == "@level" || k == "@timestamp" {
			continue
		}
		if len(attrs) == maxAttrs {
			break
		}
		// The prefix keeps it from passing for something that the gateway says.
		attrs = append(attrs, slog.Attr{Key: "plugin." + clean(k, maxKey), Value: value(fields[k])})
	}
	return level, clean(message, maxValue), attrs, true
}

func value(v any) slog.Value {
	switch v := v.(type) {
	case string:
		return slog.StringValue(clean(v, maxValue))
	case float64:
		return slog.Float64Value(v)
	case bool:
		return slog.BoolValue(v)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return slog.StringValue("?")
	}
	return slog.StringValue(clean(string(b), maxValue))
}

// clean returns s cut to a length in bytes, with everything escaped that a terminal might act on or that is not text.
func clean(s string, limit int) string {
	cut := clip(s, limit)
	if strings.IndexFunc(cut, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) < 0 {
		return cut
	}
	var b strings.Builder
	for i, r := range cut {
		switch {
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(cut[i:]); size == 1 {
				fmt.Fprintf(&b, `\x%02x`, cut[i])
				continue
			}
			b.WriteRune(r)
		case r == '\t':
			b.WriteByte(' ')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}

// hcLog is the logger of go-plugin itself. What it says is about the inside of go-plugin: it is for debugging.
type hcLog struct {
	hclog.Logger // what is not here says nothing
	log          *slog.Logger
}

func newHCLog(log *slog.Logger) hclog.Logger {
	return &hcLog{Logger: hclog.NewNullLogger(), log: log}
}

func (l *hcLog) Log(_ hclog.Level, msg string, args ...any) {
	l.log.Debug("go-plugin", "text", clean(msg, maxValue), "args", clean(fmt.Sprint(args...), maxValue))
}
func (l *hcLog) Trace(string, ...any)           {}
func (l *hcLog) Debug(msg string, args ...any)  { l.Log(hclog.Debug, msg, args...) }
func (l *hcLog) Info(msg string, args ...any)   { l.Log(hclog.Info, msg, args...) }
func (l *hcLog) Warn(msg string, args ...any)   { l.Log(hclog.Warn, msg, args...) }
func (l *hcLog) Error(msg string, args ...any)  { l.Log(hclog.Error, msg, args...) }
func (l *hcLog) With(...any) hclog.Logger       { return l }
func (l *hcLog) Named(string) hclog.Logger      { return l }
func (l *hcLog) ResetNamed(string) hclog.Logger { return l }
