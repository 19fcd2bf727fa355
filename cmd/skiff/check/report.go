package check

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Status is a finding's verdict.
type Status string

// The verdicts. Warn is for what works but will surprise somebody; Fail is for
// what keeps Skiff, or a part of it, from working.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Finding is what was found about one thing. Area and Check name it; both keep
// their spelling from release to release.
type Finding struct {
	Area   string `json:"area"`
	Check  string `json:"check"`
	Status Status `json:"status"`
	// Found says what there is and, unless all is well, what it means.
	Found string `json:"found"`
	// Remedy are commands to type as root, one a line; empty when all is well.
	Remedy []string `json:"remedy,omitempty"`
}

// Report is everything that was found, in the order of the areas.
type Report struct {
	// Version of skiff, and the machine's host name.
	Version string `json:"version"`
	Host    string `json:"host"`
	// Role is what the machine was looked at as: control or worker.
	Role string `json:"role"`
	// Installed says whether the machine belongs to a cluster already.
	Installed bool `json:"installed"`

	Findings []Finding `json:"findings"`
	// Skipped names what only root may look at, when somebody else asked.
	Skipped []string `json:"skipped,omitempty"`

	OK       int `json:"ok"`
	Warnings int `json:"warnings"`
	Failures int `json:"failures"`
}

func (r *Report) count() {
	r.OK, r.Warnings, r.Failures = 0, 0, 0
	for _, f := range r.Findings {
		switch f.Status {
		case OK:
			r.OK++
		case Warn:
			r.Warnings++
		case Fail:
			r.Failures++
		}
	}
}

// Verdict is an error when something fails.
func (r *Report) Verdict() error {
	switch r.Failures {
	case 0:
		return nil
	case 1:
		return errors.New("1 check failed, see above")
	}
	return fmt.Errorf("%d checks failed, see above", r.Failures)
}

// Print writes the report as people read it; quiet leaves out what is ok.
func (r *Report) Print(w io.Writer, quiet bool) {
	state := "before installation"
	if r.Installed {
		state = "installed"
	}
	fmt.Fprintf(w, "%s as a %s machine, %s\n", r.Host, r.Role, state)
	area := ""
	for _, f := range r.Findings {
		if quiet && f.Status == OK {
			continue
		}
		if f.Area != area {
			area = f.Area
			fmt.Fprintf(w, "\n%s\n", area)
		}
		fmt.Fprintf(w, "  %-4s  %-20s  %s\n", f.Status, f.Check, f.Found)
		for _, line := range f.Remedy {
			fmt.Fprintf(w, "          %s\n", line)
		}
	}
	if len(r.Skipped) > 0 {
		fmt.Fprintf(w, "\nOnly root can look at: %s\n", strings.Join(r.Skipped, ", "))
	}
	fmt.Fprintf(w, "\n%d ok, %d warn, %d fail\n", r.OK, r.Warnings, r.Failures)
}
