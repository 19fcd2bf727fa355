package logs

import (
	"bytes"
	"time"
)

// Stream names, as they stand in the log.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// maxContent is how much of a line goes into one record; longer lines are cut into parts.
const maxContent = 16 * 1024

// timeFormat has a fixed width, so that lines of one log compare as text.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// appendRecords formats data as records of one timestamp and appends them to dst.
// A last line without its newline becomes a part.
func appendRecords(dst []byte, at time.Time, stream string, data []byte) []byte {
	var stamp [len(timeFormat)]byte
	prefix := at.UTC().AppendFormat(stamp[:0], timeFormat)
	for len(data) > 0 {
		line, tag, rest := data, byte('P'), []byte(nil)
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, tag, rest = data[:i], 'F', data[i+1:]
		}
		for len(line) > maxContent {
			dst = appendRecord(dst, prefix, stream, 'P', line[:maxContent])
			line = line[maxContent:]
		}
		dst = appendRecord(dst, prefix, stream, tag, line)
		data = rest
	}
	return dst
}

func appendRecord(dst, prefix []byte, stream string, tag byte, content []byte) []byte {
	dst = append(dst, prefix...)
	dst = append(dst, ' ')
	dst = append(dst, stream...)
	dst = append(dst, ' ', tag, ' ')
	dst = append(dst, content...)
	return append(dst, '\n')
}

// complete is how much of data can be written now: its whole lines, or, of a line
// that alone fills a record, whole records.
func complete(data []byte) int {
	if i := bytes.LastIndexByte(data, '\n'); i >= 0 {
		return i + 1
	}
	return len(data) / maxContent * maxContent
}

// payload undoes appendRecords for the records of one stream and timestamp.
func payload(log []byte, at time.Time, stream string) []byte {
	prefix := []byte(at.UTC().Format(timeFormat) + " " + stream + " ")
	var data []byte
	for record := range bytes.Lines(log) {
		rest, ok := bytes.CutPrefix(record, prefix)
		if !ok || len(rest) < 3 || record[len(record)-1] != '\n' {
			continue
		}
		data = append(data, rest[2:len(rest)-1]...)
		if rest[0] == 'F' {
			data = append(data, '\n')
		}
	}
	return data
}
