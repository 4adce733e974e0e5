package pluginmain

import (
	"io"
	"log/slog"
	"strings"
)

// newHandler returns a handler that writes lines as the gateway reads them: JSON objects with the keys @level, @message and
// @timestamp, as hashicorp/go-hclog makes them.
func newHandler(w io.Writer, level string) slog.Handler {
	var lowest slog.Level // info
	_ = lowest.UnmarshalText([]byte(level))
	return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: lowest, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) > 0 {
			return a
		}
		switch a.Key {
		case slog.LevelKey:
			return slog.String("@level", strings.ToLower(a.Value.String()))
		case slog.MessageKey:
			a.Key = "@message"
		case slog.TimeKey:
			return slog.String("@timestamp", a.Value.Time().Format("2006-01-02T15:04:05.000000Z07:00"))
		}
		return a
	}})
}
