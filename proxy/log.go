package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"oxbow/cache"
)

// logRequest writes the line of a request: of what came with it only method and path, as
// all else may hold what its sender wants kept.
func (s *Server) logRequest(w *reply, r *http.Request, took time.Duration) {
	level, message := slog.LevelInfo, "request"
	switch {
	case isProbe(r):
		level = slog.LevelDebug
	case w.outcome == outcomeRefused:
		level, message = slog.LevelWarn, "refused by the forward proxy"
	}
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method),
		slog.String("path", shownPath(r.URL.Path)),
		slog.Int("status", w.status), // 0: cut without an answer
		slog.Int64("bytes", w.bytes),
		slog.Float64("seconds", took.Seconds()),
		slog.String("client", client),
	}
	if w.outcome != "" {
		attrs = append(attrs, slog.String("host", clip(shown(w.host), maxShownHost)), slog.String("forward", w.outcome))
	}
	if w.carried > 0 {
		attrs = append(attrs, slog.Int64("tunnelled", w.carried))
	}
	if status := w.Header().Get("Cache-Status"); status != "" {
		attrs = append(attrs, slog.String("cache", status))
	}
	if w.stream != "" {
		attrs = append(attrs, slog.String("stream", w.stream))
	}
	if w.snapshot != (cache.Digest{}) {
		attrs = append(attrs, slog.String("snapshot", w.snapshot.String()[:shortID]))
	}
	if w.cutShort() {
		attrs = append(attrs, slog.Int64("of", w.length))
	}
	if w.err != nil {
		attrs = append(attrs, slog.Any("reason", w.err))
	}
	s.log.LogAttrs(context.WithoutCancel(r.Context()), level, message, attrs...)
}

// maxShownHost bounds the host that a client asked the forward proxy for, in a log: names
// have up to 253 characters.
const maxShownHost = 260

// shortID is how many characters of a snapshot's id tell it apart in a log.
const shortID = 12

// logPanic tells of a fault of ours. The trace names places in the program and no values.
func (s *Server) logPanic(r *http.Request, fault any) {
	s.log.Error("internal error: the request is cut", "path", shownPath(r.URL.Path), "reason", shown(fmt.Sprint(fault)), "trace", string(debug.Stack()))
}

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
