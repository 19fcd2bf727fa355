package daemon

import (
	"bytes"
	"context"
	"encoding"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
)

// fieldPrefix begins the journal's fields that hold the attributes of a line,
// so that none of them is taken for one that the journal knows.
const fieldPrefix = "SKIFF_"

// maxFieldName is the longest name of a field that the journal takes, in bytes.
const maxFieldName = 64

// journalHandler writes lines to systemd's journal: MESSAGE for people, with the
// attributes as key=value behind it, and each attribute as a field to search by.
//
//	pod=web namespace=default  ->  SKIFF_POD=default/web SKIFF_NAMESPACE=default
//	podCIDRs=[10.244.0.0/24]   ->  SKIFF_POD_CIDRS=[10.244.0.0/24]
//
// A line that the journal does not take goes to the fallback. It is safe for
// concurrent use.
type journalHandler struct {
	send     func(message string, priority journal.Priority, fields map[string]string) error
	fallback slog.Handler
	// words formats what follows the message; each line is formatted by a copy
	// that writes to a buffer of its own.
	with []func(slog.Handler) slog.Handler
	// fields are those of WithAttrs; they are never changed.
	fields map[string]string
	// group is what WithGroup puts before the names that follow.
	group string
}

// journals says whether what is written to the file ends in the journal.
func journals(file any) bool {
	if file != os.Stderr {
		return false
	}
	// An error says that the variable is somebody else's.
	connected, err := journal.StderrIsJournalStream()
	return err == nil && connected
}

// newJournalHandler returns a handler for this process.
func newJournalHandler(fallback slog.Handler) *journalHandler {
	return &journalHandler{
		send: journal.Send, fallback: fallback,
		fields: map[string]string{"SYSLOG_IDENTIFIER": filepath.Base(os.Args[0])},
	}
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.fallback.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	fields := maps.Clone(h.fields)
	r.Attrs(func(a slog.Attr) bool {
		addField(fields, h.group, a)
		return true
	})
	namePod(fields)
	message, err := h.message(ctx, r)
	if err == nil {
		err = h.send(message, priority(r.Level), fields)
	}
	if err != nil {
		return h.fallback.Handle(ctx, r)
	}
	return nil
}

// message is the line as people read it.
func (h *journalHandler) message(ctx context.Context, r slog.Record) (string, error) {
	var words bytes.Buffer
	var text slog.Handler = slog.NewTextHandler(&words, &slog.HandlerOptions{Level: slog.LevelDebug - 100, ReplaceAttr: onlyAttributes})
	for _, with := range h.with {
		text = with(text)
	}
	if err := text.Handle(ctx, r); err != nil {
		return "", err
	}
	return strings.TrimRight(r.Message+" "+words.String(), " \n"), nil
}

// onlyAttributes leaves away what the journal keeps in fields of its own.
func onlyAttributes(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && slices.Contains([]string{slog.TimeKey, slog.LevelKey, slog.MessageKey}, a.Key) {
		return slog.Attr{}
	}
	return a
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.fields = maps.Clone(h.fields)
	for _, a := range attrs {
		addField(next.fields, h.group, a)
	}
	return next.then(func(text slog.Handler) slog.Handler { return text.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	next := *h
	if name != "" {
		next.group += name + "."
	}
	return next.then(func(text slog.Handler) slog.Handler { return text.WithGroup(name) })
}

func (h journalHandler) then(with func(slog.Handler) slog.Handler) slog.Handler {
	h.with = append(slices.Clip(h.with), with)
	h.fallback = with(h.fallback)
	return &h
}

// addField adds the fields of an attribute, several for a group.
func addField(fields map[string]string, group string, a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, each := range value.Group() {
			addField(fields, group, each)
		}
		return
	}
	if a.Key != "" {
		fields[fieldName(group+a.Key)] = fieldValue(value)
	}
}

// fieldName is the journal's name for a key: capitals, digits and underscores.
func fieldName(key string) string {
	var name strings.Builder
	name.WriteString(fieldPrefix)
	before := '_'
	for _, r := range key {
		switch {
		case r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r):
			r = '_'
		case unicode.IsUpper(r) && (unicode.IsLower(before) || unicode.IsDigit(before)):
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToUpper(r))
		before = r
	}
	return name.String()[:min(name.Len(), maxFieldName)]
}

// fieldValue is a value as slog's own handlers write it, without quotes.
func fieldValue(value slog.Value) string {
	if value.Kind() == slog.KindTime {
		return value.Time().Format(time.RFC3339Nano)
	}
	if marshaler, ok := value.Any().(encoding.TextMarshaler); ok {
		if text, err := marshaler.MarshalText(); err == nil {
			return string(text)
		}
	}
	return value.String()
}

// namePod makes a pod's name the same in every line, namespace/name, because a
// name alone is not one pod's.
func namePod(fields map[string]string) {
	const pod, namespace = fieldPrefix + "POD", fieldPrefix + "NAMESPACE"
	name, has := fields[pod]
	if !has {
		return
	}
	if of, _, whole := strings.Cut(name, "/"); whole {
		fields[namespace] = of
	} else if of := fields[namespace]; of != "" {
		fields[pod] = of + "/" + name
	}
}

// priority is syslog's word for a level.
func priority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

// complain writes why the process ends to standard error, or to the journal as
// one message whose priority makes it stand out.
func complain(name string, err error) {
	text := fmt.Sprintf("%s: %v", name, err)
	if journals(os.Stderr) && journal.Send(text, journal.PriErr, map[string]string{"SYSLOG_IDENTIFIER": name, fieldPrefix + "ERROR": err.Error()}) == nil {
		return
	}
	fmt.Fprintln(os.Stderr, text)
}
