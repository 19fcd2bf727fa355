package containerlog

import (
	"bytes"
	"fmt"
	"time"
)

// line is one record: "2006-01-02T15:04:05.999999999Z stdout F text".
type line struct {
	stamp   []byte
	time    time.Time
	stderr  bool
	partial bool
	text    []byte
}

// parse reads one record without its newline.
func parse(raw []byte) (line, error) {
	var l line
	stamp, rest, ok := bytes.Cut(raw, []byte{' '})
	if !ok {
		return l, fmt.Errorf("log line %q has no time stamp", raw)
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return l, fmt.Errorf("log line %q: %w", raw, err)
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return l, fmt.Errorf("log line %q has no stream", raw)
	}
	tag, text, _ := bytes.Cut(rest, []byte{' '})
	l = line{stamp: stamp, time: t, text: text, stderr: string(stream) == "stderr", partial: bytes.HasPrefix(tag, []byte{'P'})}
	if !l.stderr && string(stream) != "stdout" {
		return l, fmt.Errorf("log line %q: unknown stream %q", raw, stream)
	}
	return l, nil
}
