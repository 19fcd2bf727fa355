package podstate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// cannotRun is the reason of a container that never ran and so has no log.
const cannotRun = "ContainerCannotRun"

// readTerminationMessage adds what the container left behind as its last word,
// when it has exited, to what the runtime says.
func readTerminationMessage(c *Container) {
	if c.State != Exited {
		return
	}
	text, tryLog := "", c.Record.MessagePolicy == v1.TerminationMessageFallbackToLogsOnError && c.ExitCode != 0 && c.Reason != cannotRun
	if c.Record.MessageFile != "" {
		var err error
		if text, err = tail(c.Record.MessageFile, maxMessageFile); err != nil {
			text, tryLog = fmt.Sprintf("Error on reading termination log %s: %v", c.Record.MessageFile, err), false
		}
	}
	if text == "" && tryLog && c.LogPath != "" {
		text = logTail(c.LogPath)
	}
	if text != "" && c.Message != "" {
		c.Message += ": "
	}
	c.Message += text
}

// tail returns at most the last limit bytes of a file; nothing of a missing one.
func tail(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return "", err
	}
	if _, err := f.Seek(max(0, size-limit), io.SeekStart); err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	return string(data), err
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
