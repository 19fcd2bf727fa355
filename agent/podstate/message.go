package podstate

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
)

const (
	// maxMessageFile bounds a termination message, maxMessageLog one that is
	// taken from the log's end: the figures of the API documentation.
	maxMessageFile  = 4096
	maxMessageLog   = 2048
	maxMessageLines = 80
	// maxLogTail is how much of the log file is read for those lines.
	maxLogTail = 4 * maxMessageLog
)

// readTerminationMessage fills in what the container left behind as its last
// word, when it has exited.
func readTerminationMessage(c *Container) {
	if c.State != Exited {
		return
	}
	if c.Record.MessageFile != "" {
		if text := head(c.Record.MessageFile, maxMessageFile); text != "" {
			c.Message = text
			return
		}
	}
	if c.Record.MessagePolicy == v1.TerminationMessageFallbackToLogsOnError && c.ExitCode != 0 && c.LogPath != "" {
		if text := logTail(c.LogPath); text != "" {
			c.Message = text
		}
	}
}

// head returns at most limit bytes of a file, or nothing: a missing file is
// the usual case.
func head(path string, limit int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return ""
	}
	return string(data)
}

// logTail returns the text of the last lines of a log in CRI format.
func logTail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		if _, err := f.Seek(max(0, size-maxLogTail), io.SeekStart); err != nil {
			return ""
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLogTail))
	if err != nil {
		return ""
	}
	var lines []string
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(make([]byte, 0, maxLogTail), maxLogTail+1)
	for scanner.Scan() {
		// "time stream tag text"; a line cut at the front has no such shape.
		fields := strings.SplitN(scanner.Text(), " ", 4)
		if len(fields) != 4 || (fields[1] != "stdout" && fields[1] != "stderr") {
			continue
		}
		line := fields[3]
		if fields[2] == "F" {
			line += "\n"
		}
		lines = append(lines, line)
	}
	text := strings.Join(lines[max(0, len(lines)-maxMessageLines):], "")
	return text[max(0, len(text)-maxMessageLog):]
}
