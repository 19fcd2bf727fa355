package main

import (
	"fmt"
	"io"
)

// report prints the rows with the ratio by which the first store beats the second.
func (s *suite) report(out io.Writer, ours, theirs string) {
	fmt.Fprintf(out, "\n| what | unit | %s | %s | ratio |\n|---|---|---|---|---|\n", ours, theirs)
	for _, l := range s.lines {
		a, b := l.values[ours], l.values[theirs]
		ratio := "-"
		if a > 0 && b > 0 {
			if l.more {
				ratio = fmt.Sprintf("%.2f", a/b)
			} else {
				ratio = fmt.Sprintf("%.2f", b/a)
			}
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", l.what, l.unit, cell(l, ours), cell(l, theirs), ratio)
	}
}

func cell(l *line, name string) string {
	value, ok := l.values[name]
	if !ok {
		return "-"
	}
	text := fmt.Sprintf("%.1f", value)
	if note := l.notes[name]; note != "" {
		text += " (" + note + ")"
	}
	return text
}
