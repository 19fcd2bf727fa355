package logs

import (
	"strings"
	"testing"
	"time"
)

func TestRecordsAreInTheFormatOfCRI(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	const stamp = "2026-01-02T03:04:05.000000006Z stdout "
	for name, c := range map[string]struct{ data, want string }{
		"a line is a full record":                    {"hello\n", stamp + "F hello\n"},
		"an empty line is a record":                  {"\n", stamp + "F \n"},
		"lines are records of one timestamp":         {"a\nb\n", stamp + "F a\n" + stamp + "F b\n"},
		"a line without its end is a part":           {"a\nb", stamp + "F a\n" + stamp + "P b\n"},
		"a carriage return of a terminal stays":      {"a\r\n", stamp + "F a\r\n"},
		"a line longer than a record is cut":         {strings.Repeat("x", maxContent) + "y\n", stamp + "P " + strings.Repeat("x", maxContent) + "\n" + stamp + "F y\n"},
		"a line that just fills a record is not cut": {strings.Repeat("x", maxContent) + "\n", stamp + "F " + strings.Repeat("x", maxContent) + "\n"},
		"nothing is no record":                       {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := string(appendRecords(nil, at, Stdout, []byte(c.data)))
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if back := string(payload([]byte("2026-01-02T03:04:05.000000005Z stdout F older\n"+got), at, Stdout)); back != c.data {
				t.Errorf("read back as %q", back)
			}
			if other := payload([]byte(got), at, Stderr); len(other) > 0 {
				t.Errorf("the other stream has %q", other)
			}
		})
	}
}

func TestCompleteEndsWithTheLastLine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		data string
		want int
	}{
		"whole lines are complete":           {"a\nb\n", 4},
		"a beginning is left":                {"a\nbc", 2},
		"a short beginning alone is nothing": {"abc", 0},
		"a long line gives whole records":    {strings.Repeat("x", maxContent+5), maxContent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := complete([]byte(c.data)); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
