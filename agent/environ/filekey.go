package environ

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// fileKey reads one variable from an env file that an init container left in
// an emptyDir volume.
func (b *builder) fileKey(ref *v1.FileKeySelector) (value string, set bool, err error) {
	dir, ok := b.Files.VolumePath(ref.VolumeName)
	if !ok {
		return "", false, fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", ref.VolumeName)
	}
	optional := ref.Optional != nil && *ref.Optional
	// OpenInRoot keeps a link in the volume from leading out of it.
	f, err := os.OpenInRoot(dir, filepath.Clean(ref.Path))
	if errors.Is(err, os.ErrNotExist) && optional {
		return "", false, nil
	}
	// What is in the file stays out of the message: it may be secret.
	unreadable := fmt.Errorf("couldn't parse env file")
	if err != nil {
		return "", false, unreadable
	}
	defer f.Close()
	if value, err = envFileValue(f, ref.Key); err != nil {
		return "", false, unreadable
	}
	if value == "" {
		if optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("environment variable key %q not found in file %q", ref.Key, filepath.Join(dir, ref.Path))
	}
	return value, true, nil
}

// envFileValue finds a variable in an env file: lines NAME='value', where the
// value is taken as it stands and may go on over several lines; comments begin
// with #. A space after the equals sign leaves the variable empty, as in a
// shell. It reads no further than the variable, so that mistakes behind it do
// no harm. Missing is the same as empty.
func envFileValue(r io.Reader, key string) (string, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimLeft(lines.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if !found || name == "" || strings.TrimRight(name, " \t") != name {
			return "", fmt.Errorf("line %q is not NAME='value'", line)
		}
		if strings.HasPrefix(value, " ") || strings.HasPrefix(value, "\t") {
			if name == key {
				return "", nil
			}
			continue
		}
		rest, quoted := strings.CutPrefix(value, "'")
		if !quoted {
			return "", fmt.Errorf("the value of %s is not in single quotes", name)
		}
		value, err := quotedValue(rest, lines)
		if err != nil {
			return "", fmt.Errorf("value of %s: %w", name, err)
		}
		if name == key {
			return value, nil
		}
	}
	return "", lines.Err()
}

// quotedValue reads up to the closing quote, on further lines if need be.
func quotedValue(rest string, lines *bufio.Scanner) (string, error) {
	var value strings.Builder
	for {
		text, behind, closed := strings.Cut(rest, "'")
		value.WriteString(text)
		if closed {
			if behind = strings.TrimLeft(behind, " \t"); behind != "" && behind[0] != '#' {
				return "", errors.New("something follows the closing quote")
			}
			return value.String(), nil
		}
		value.WriteByte('\n')
		if !lines.Scan() {
			return "", errors.Join(errors.New("the quote is not closed"), lines.Err())
		}
		rest = lines.Text()
	}
}
